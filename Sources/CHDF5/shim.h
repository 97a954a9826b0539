#ifndef COMPRESS_HDF5_SHIM_H
#define COMPRESS_HDF5_SHIM_H

// Later versions still speak the interface of 1.10.
#define H5_USE_110_API 1
#include <hdf5.h>

// Swift cannot see macros that are more than numbers: the predefined types, property classes and flags of the library.
static inline hid_t hdf5_open_read_only(const char *path) { return H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT); }
static inline hid_t hdf5_create(const char *path) { return H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT); }
static inline hid_t hdf5_dataset_properties(void) { return H5Pcreate(H5P_DATASET_CREATE); }
static inline hid_t hdf5_link_properties(void) { return H5Pcreate(H5P_LINK_CREATE); }
static inline hid_t hdf5_float16(void) {
  hid_t type = H5Tcopy(H5T_IEEE_F32LE);
  H5Tset_fields(type, 15, 10, 5, 0, 10);
  H5Tset_size(type, 2);
  H5Tset_ebias(type, 15);
  return type;
}
static inline hid_t hdf5_float32(void) { return H5Tcopy(H5T_IEEE_F32LE); }
static inline hid_t hdf5_float64(void) { return H5Tcopy(H5T_IEEE_F64LE); }
static inline hid_t hdf5_opaque(size_t size) {
  hid_t type = H5Tcreate(H5T_OPAQUE, size);
  H5Tset_tag(type, "");
  return type;
}
// What h5py makes of booleans.
static inline hid_t hdf5_boolean(void) {
  hid_t type = H5Tenum_create(H5T_STD_I8LE);
  signed char value = 0;
  H5Tenum_insert(type, "FALSE", &value);
  value = 1;
  H5Tenum_insert(type, "TRUE", &value);
  return type;
}
static inline hid_t hdf5_integer(size_t size, int is_signed) {
  switch (size) {
  case 1: return H5Tcopy(is_signed ? H5T_STD_I8LE : H5T_STD_U8LE);
  case 2: return H5Tcopy(is_signed ? H5T_STD_I16LE : H5T_STD_U16LE);
  case 4: return H5Tcopy(is_signed ? H5T_STD_I32LE : H5T_STD_U32LE);
  default: return H5Tcopy(is_signed ? H5T_STD_I64LE : H5T_STD_U64LE);
  }
}
// Fixed: of so many bytes; 0 for a variable length.
static inline hid_t hdf5_string(size_t size) {
  hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, size == 0 ? H5T_VARIABLE : size);
  H5Tset_cset(type, H5T_CSET_UTF8);
  H5Tset_strpad(type, H5T_STR_NULLPAD);
  return type;
}

// 0 for a hard link, another number for any other, negative for a failure.
static inline int hdf5_link_kind(hid_t group, const char *name) {
  H5L_info_t info;
  return H5Lget_info(group, name, &info, H5P_DEFAULT) < 0 ? -1 : (int)info.type;
}
// The path that a soft link names; negative where that fails or does not fit.
static inline int hdf5_link_target(hid_t group, const char *name, char *target, size_t size) {
  H5L_info_t info;
  if (H5Lget_info(group, name, &info, H5P_DEFAULT) < 0 || info.type != H5L_TYPE_SOFT || info.u.val_size > size) return -1;
  return H5Lget_val(group, name, target, size, H5P_DEFAULT) < 0 ? -1 : 0;
}
static inline ssize_t hdf5_link_name(hid_t group, hsize_t index, char *name, size_t size) {
  return H5Lget_name_by_idx(group, ".", H5_INDEX_NAME, H5_ITER_INC, index, name, size, H5P_DEFAULT);
}
// 0 for a group, 1 for a dataset, 2 for anything else, negative for a failure.
static inline int hdf5_object(hid_t object, haddr_t *address) {
  H5O_info_t info;
  if (H5Oget_info(object, &info) < 0) return -1;
  *address = info.addr;
  return info.type == H5O_TYPE_GROUP ? 0 : info.type == H5O_TYPE_DATASET ? 1 : 2;
}

// Nothing is printed, and no code is loaded for a filter that a file asks for.
// Everything is closed by whoever opened it. The library's own clean-up at exit runs while other threads may still hold objects, and then
// loops; it must be declined before anything else is asked of the library.
static inline void hdf5_harden(void) {
  H5dont_atexit();
  H5open();
  H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
  H5PLset_loading_state(0);
}

#endif
