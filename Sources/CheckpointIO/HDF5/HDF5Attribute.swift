internal import CHDF5
internal import Foundation

/// Strings that are attached to groups and datasets. Only while the library is locked.
enum HDF5Attribute {
  /// A string or a list of strings, fixed or variable in length; `nil` for anything else.
  static func strings(_ name: String, of object: hid_t) -> [String]? {
    guard H5Aexists(object, name) > 0, let attribute = HDF5Handle(H5Aopen(object, name, 0), { H5Aclose($0) }),
      let type = HDF5Handle(H5Aget_type(attribute.id), { H5Tclose($0) }),
      let space = HDF5Handle(H5Aget_space(attribute.id), { H5Sclose($0) }),
      H5Tget_class(type.id) == H5T_STRING
    else { return nil }
    // Attributes are small by nature; the library itself limits most to 64 KiB.
    let count = H5Sget_simple_extent_npoints(space.id)
    guard (1...1 << 20).contains(count) else { return count == 0 ? [] : nil }
    if H5Tis_variable_str(type.id) > 0 {
      var pointers = [UnsafeMutablePointer<CChar>?](repeating: nil, count: Int(count))
      guard let memory = HDF5Handle(H5Tcopy(type.id), { H5Tclose($0) }), H5Aread(attribute.id, memory.id, &pointers) >= 0 else {
        return nil
      }
      defer { H5Dvlen_reclaim(memory.id, space.id, 0, &pointers) }
      return pointers.map { $0.map { String(cString: $0) } ?? "" }
    }
    let size = H5Tget_size(type.id)
    guard size > 0, size <= 1 << 20, Int(count) <= (1 << 26) / size else { return nil }
    var bytes = [UInt8](repeating: 0, count: Int(count) * size)
    guard H5Aread(attribute.id, type.id, &bytes) >= 0 else { return nil }
    return (0..<Int(count)).map { index in
      var text = bytes[index * size..<(index + 1) * size]
      if let end = text.firstIndex(of: 0) { text = text[..<end] }
      return String(decoding: text, as: UTF8.self)
    }
  }

  /// Attaches a string of variable length, as h5py does.
  ///
  /// - Returns: whether that worked.
  static func write(_ text: String, _ name: String, to object: hid_t) -> Bool {
    guard let type = HDF5Handle(hdf5_string(0), { H5Tclose($0) }), let space = HDF5Handle(H5Screate(H5S_SCALAR), { H5Sclose($0) }),
      let attribute = HDF5Handle(H5Acreate2(object, name, type.id, space.id, 0, 0), { H5Aclose($0) })
    else { return false }
    return text.withCString { pointer in
      var pointer: UnsafePointer<CChar>? = pointer
      return H5Awrite(attribute.id, type.id, &pointer) >= 0
    }
  }
}
