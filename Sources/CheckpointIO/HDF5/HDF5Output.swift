internal import CHDF5
package import Foundation
package import Tensors

/// An HDF5 file being written, in the oldest version of the format that holds it: what every h5py, h5dump and Keras reads.
///
/// Tensors from 4 KiB on are cut into chunks of about 1 MiB, shuffled (byte k of every element lies beside byte k of the next) and deflated;
/// smaller ones lie contiguous. There are no times in the file: the same tensors make the same bytes.
package final class HDF5Output: Sendable {
  package let url: URL
  private let file: HDF5Handle
  private let deflateLevel: UInt32

  private static let chunkBytes = 1 << 20

  /// - Parameter deflateLevel: of zlib, 1 to 9; 0 leaves all tensors contiguous, so that readers can map them.
  package init(_ url: URL, deflateLevel: UInt32 = 4) throws(CheckpointError) {
    self.url = url
    self.deflateLevel = deflateLevel
    let file = HDF5Library.withLock { HDF5Handle(hdf5_create(url.path), { H5Fclose($0) }) }
    guard let file else { throw .cannotWrite(path: url.path, reason: "libhdf5 cannot create the file") }
    self.file = file
  }

  private func failure(_ name: String, _ reason: String) -> CheckpointError { .cannotWrite(path: url.path, reason: "\(name): \(reason)") }

  /// - Parameter path: slashes separate groups, which are made as needed.
  package func append(_ tensor: Tensor, _ path: String) throws(CheckpointError) {
    let (file, level) = (file, deflateLevel)
    let failed: CheckpointError? = HDF5Library.withLock {
      guard let type = HDF5Type.file(tensor.dtype) else {
        return .unusableType(tensor: path, dtype: tensor.dtype.rawValue, use: "an HDF5 dataset")
      }
      let extent = tensor.shape.map { hsize_t($0) }
      let space = HDF5Handle(extent.isEmpty ? H5Screate(H5S_SCALAR) : H5Screate_simple(Int32(extent.count), extent, nil)) { H5Sclose($0) }
      let (links, properties) = (
        HDF5Handle(hdf5_link_properties()) { H5Pclose($0) }, HDF5Handle(hdf5_dataset_properties()) { H5Pclose($0) }
      )
      guard let space, let links, let properties, H5Pset_create_intermediate_group(links.id, 1) >= 0,
        H5Pset_obj_track_times(properties.id, false) >= 0
      else { return failure(path, "libhdf5 is out of memory") }
      if level > 0, tensor.bytes.count >= 4096, !extent.isEmpty {
        let chunk = Self.chunk(tensor)
        guard H5Pset_chunk(properties.id, Int32(chunk.count), chunk) >= 0, H5Pset_shuffle(properties.id) >= 0,
          H5Pset_deflate(properties.id, level) >= 0
        else { return failure(path, "libhdf5 has no deflate") }
      }
      guard let dataset = HDF5Handle(H5Dcreate2(file.id, path, type.id, space.id, links.id, properties.id, 0), { H5Dclose($0) }) else {
        return failure(path, "libhdf5 cannot make the dataset; is the name used twice?")
      }
      if let name = HDF5Type.attribute(of: tensor.dtype), !HDF5Attribute.write(name, "dtype", to: dataset.id) {
        return failure(path, "libhdf5 cannot write an attribute")
      }
      let isWritten = tensor.bytes.isEmpty || tensor.bytes.withUnsafeBytes { H5Dwrite(dataset.id, type.id, 0, 0, 0, $0.baseAddress) >= 0 }
      // Chunks may be held back until the dataset is closed.
      let isClosed = dataset.close()
      return isWritten && isClosed ? nil : failure(path, "libhdf5 cannot write the elements; is the disk full?")
    }
    if let failed { throw failed }
  }

  /// Whole rows of the last dimensions, about as many as make a chunk.
  private static func chunk(_ tensor: Tensor) -> [hsize_t] {
    var chunk = tensor.shape.map { max($0, 1) }
    var bytes = chunk.reduce(tensor.dtype.bitCount / 8, *)
    for dimension in chunk.indices where bytes > chunkBytes {
      let rest = bytes / chunk[dimension]
      chunk[dimension] = max(1, min(chunk[dimension], chunkBytes / max(rest, 1)))
      bytes = rest * chunk[dimension]
    }
    return chunk.map { hsize_t($0) }
  }

  /// Attaches a string to a group, which is made as needed, or to a dataset.
  package func setAttribute(_ name: String, _ text: String, of object: String = "/") throws(CheckpointError) {
    let file = file
    let done = HDF5Library.withLock {
      guard let object = HDF5Handle(H5Oopen(file.id, object, 0), { H5Oclose($0) }) else { return false }
      return HDF5Attribute.write(text, name, to: object.id)
    }
    guard done else { throw failure(object, "libhdf5 cannot write the attribute \(name)") }
  }

  /// Writes all that is held back and closes the file; nothing can be appended any more.
  package func finish() throws(CheckpointError) {
    let file = file
    let (isFlushed, isClosed) = (HDF5Library.withLock { H5Fflush(file.id, H5F_SCOPE_GLOBAL) >= 0 }, file.close())
    guard isFlushed && isClosed else { throw failure("the file", "libhdf5 cannot write all of it; is the disk full?") }
  }
}
