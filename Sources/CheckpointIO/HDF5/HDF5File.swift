internal import CHDF5
public import Foundation
public import Tensors

/// The datasets of an HDF5 file, by libhdf5. Names are paths without the leading slash.
///
/// Contiguous datasets without filters are slices of a mapping; all others are read, and inflated, when they are asked for. Soft links to
/// datasets of the same file are other names of these. What is no tensor, or never read, is left out, and refused by name where it is asked
/// for: links to anywhere else (they are not followed), data outside the file, types that are no numbers, datasets without elements, filters
/// other than deflate, shuffle and Fletcher's checksum (no code is ever loaded for one). Damage, and datasets that declare more than what is
/// stored can stand for, refuse the file.
public struct HDF5File: TensorSource {
  public let path: String
  public let names: [String]
  private let datasets: [[UInt8]: Dataset]
  /// Why these are not among the names.
  private let leftOut: [String: String]
  private let file: HDF5Handle
  private let data: Data

  private struct Dataset {
    var info: TensorInfo
    /// Where the elements lie, for those that need no reading.
    var offset: Int?
  }

  static let magic: [UInt8] = [0x89, 0x48, 0x44, 0x46, 0x0D, 0x0A, 0x1A, 0x0A]

  /// Whether the signature stands at the beginning, or behind a user block, whose length is a power of two from 512 on.
  static func begins(_ bytes: UnsafeRawBufferPointer) -> Bool {
    if bytes.holds(magic, at: 0) { return true }
    var place = 512
    while place <= bytes.count - magic.count {
      if bytes.holds(magic, at: place) { return true }
      place *= 2
    }
    return false
  }

  /// - Parameter skipping: paths of groups whose datasets are of no interest and may be of any type.
  /// - Throws: `CheckpointError` for what is no HDF5 file, for damage, and for everything above.
  public init(_ url: URL, skipping: Set<String> = []) throws(CheckpointError) {
    let (path, data) = (url.path, try MappedFile.open(url))
    guard data.withUnsafeBytes({ Self.begins($0) }) else {
      throw .malformedHeader(path: path, offset: 0, reason: "an HDF5 file begins with its signature")
    }
    typealias Contents = (file: HDF5Handle, reader: Reader)
    let contents: Contents = try HDF5Library.withLock { () throws(CheckpointError) in
      guard let file = HDF5Handle(hdf5_open_read_only(path), { H5Fclose($0) }) else {
        throw .malformedHeader(path: path, offset: 0, reason: "libhdf5 cannot open it (truncated?)")
      }
      var reader = Reader(path: path, fileSize: data.count, skipping: skipping)
      try reader.visit(try reader.object(file.id, "/"), "", depth: 0)
      return (file, reader)
    }
    (self.path, self.data, file) = (path, data, contents.file)
    (names, datasets, leftOut) = (contents.reader.names, contents.reader.datasets, contents.reader.leftOut)
  }

  public var remarks: [String] { leftOut.sorted { $0.key < $1.key }.map { "\"\($0.key)\" is left out: \($0.value)" } }

  public var files: [URL] { [URL(filePath: path)] }

  public func info(_ name: String) -> TensorInfo? { datasets[Array(name.utf8)]?.info }

  public func tensor(_ name: String) throws(CheckpointError) -> Tensor {
    guard let dataset = datasets[Array(name.utf8)] else {
      guard let reason = leftOut[name] else { throw .missingTensor(name: name) }
      throw .unreadable(path: path, reason: "\"\(name)\": \(reason)")
    }
    let info = dataset.info
    if let offset = dataset.offset {
      return Tensor(dtype: info.dtype, shape: info.shape, bytes: data.slice(at: offset, count: info.byteCount), isMapped: true)
    }
    guard info.byteCount > 0 else { return Tensor(dtype: info.dtype, shape: info.shape, bytes: Data()) }
    let (file, path) = (file, path)
    let bytes = try HDF5Library.withLock { () throws(CheckpointError) in
      var bytes = Data(count: info.byteCount)
      let status = bytes.withUnsafeMutableBytes { buffer -> Int32 in
        guard let set = HDF5Handle(H5Dopen2(file.id, name, 0), { H5Dclose($0) }),
          let type = HDF5Handle(H5Dget_type(set.id), { H5Tclose($0) }), let copy = HDF5Handle(H5Tcopy(type.id), { H5Tclose($0) })
        else { return -1 }
        // Big-endian elements are turned round by the library.
        if H5Tget_order(copy.id) == H5T_ORDER_BE, H5Tset_order(copy.id, H5T_ORDER_LE) < 0 { return -1 }
        return H5Dread(set.id, copy.id, 0, 0, 0, buffer.baseAddress)
      }
      guard status >= 0 else {
        throw .malformedTensor(path: path, tensor: name, offset: 0, reason: "libhdf5 cannot read its elements: the file is damaged")
      }
      return bytes
    }
    return Tensor(dtype: info.dtype, shape: info.shape, bytes: bytes)
  }

  /// A string, or a list of strings, that a group or dataset has as an attribute; `nil` where there is none of this kind.
  public func attribute(_ name: String, of object: String = "/") -> [String]? {
    let file = file
    return HDF5Library.withLock {
      guard let object = HDF5Handle(H5Oopen(file.id, object, 0), { H5Oclose($0) }) else { return nil }
      return HDF5Attribute.strings(name, of: object.id)
    }
  }
}

// MARK: - Looking around

extension HDF5File {
  /// Nothing is wrong with the file, but this is not read.
  private struct LeftOut: Error { var reason: String }

  /// Walks through the groups of a file. Only while the library is locked.
  private struct Reader {
    let path: String
    let fileSize: Int
    let skipping: Set<String>
    var names: [String] = []
    var datasets: [[UInt8]: Dataset] = [:]
    var leftOut: [String: String] = [:]
    private var root: hid_t = 0
    private var visited: Set<UInt64> = []

    init(path: String, fileSize: Int, skipping: Set<String>) {
      (self.path, self.fileSize, self.skipping) = (path, fileSize, skipping)
    }

    func malformed(_ name: String, _ reason: String) -> CheckpointError {
      .malformedTensor(path: path, tensor: name.isEmpty ? "/" : name, offset: 0, reason: reason)
    }

    func object(_ place: hid_t, _ name: String) throws(CheckpointError) -> HDF5Handle {
      guard let object = HDF5Handle(H5Oopen(place, name, 0), { H5Oclose($0) }) else { throw malformed(name, "libhdf5 cannot open it") }
      return object
    }

    mutating func visit(_ object: HDF5Handle, _ name: String, depth: Int) throws(CheckpointError) {
      guard depth < 64 else { throw malformed(name, "groups nested \(depth) deep") }
      if depth == 0 { root = object.id }
      var address: haddr_t = 0
      switch hdf5_object(object.id, &address) {
      case 0:
        guard visited.insert(UInt64(address)).inserted else { throw malformed(name, "a group that is linked twice") }
        try visitGroup(object, name, depth: depth)
      case 1:
        do { datasets[Array(name.utf8)] = try dataset(object.id, name) } catch let error as LeftOut {
          leftOut[name] = error.reason
          return
        } catch let error as CheckpointError { throw error } catch { throw malformed(name, "\(error)") }
        names.append(name)
      case 2: break
      default: throw malformed(name, "libhdf5 cannot tell what it is")
      }
    }

    private mutating func visitGroup(_ group: HDF5Handle, _ name: String, depth: Int) throws(CheckpointError) {
      var info = H5G_info_t()
      // A link takes more than eight bytes.
      guard H5Gget_info(group.id, &info) >= 0, info.nlinks <= UInt64(fileSize / 8) else { throw malformed(name, "a damaged group") }
      var buffer = [CChar](repeating: 0, count: 4096)
      for index in 0..<info.nlinks {
        let count = hdf5_link_name(group.id, index, &buffer, buffer.count)
        guard count > 0, count < buffer.count else { throw malformed(name, "a damaged group, or a name of more than 4095 bytes") }
        let bytes = buffer[..<count].map { UInt8(bitPattern: $0) }
        guard let link = String(validating: bytes, as: UTF8.self) else { throw malformed(name, "a name that is not UTF-8") }
        let child = name.isEmpty ? link : name + "/" + link
        if skipping.contains(child) { continue }
        if hdf5_link_kind(group.id, link) == 0 {
          try visit(try object(group.id, link), child, depth: depth + 1)
          continue
        }
        guard let target = target(of: link, in: group, links: 16) else {
          leftOut[child] = "a link that is not to an object of this file, which is refused"
          continue
        }
        var address: haddr_t = 0
        guard hdf5_object(target.id, &address) == 1 else {
          leftOut[child] = "a soft link to something other than a dataset"
          continue
        }
        try visit(target, child, depth: depth + 1)
      }
    }

    /// What a soft link leads to, followed step by step so that no other file is ever opened; `nil` for whatever leads nowhere or elsewhere.
    private func target(of link: String, in group: HDF5Handle, links: Int) -> HDF5Handle? {
      var buffer = [CChar](repeating: 0, count: 4097)
      guard links > 0, hdf5_link_target(group.id, link, &buffer, buffer.count - 1) == 0 else { return nil }
      let path = String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
      guard var place = HDF5Handle(H5Oopen(path.hasPrefix("/") ? root : group.id, ".", 0), { H5Oclose($0) }) else { return nil }
      for step in path.split(separator: "/").map(String.init) where step != "." {
        let next: HDF5Handle? =
          switch hdf5_link_kind(place.id, step) {
          case 0: HDF5Handle(H5Oopen(place.id, step, 0), { H5Oclose($0) })
          case Int32(H5L_TYPE_SOFT.rawValue): target(of: step, in: place, links: links - 1)
          default: nil
          }
        guard let next else { return nil }
        place = next
      }
      return place
    }

    /// - Throws: `LeftOut` for what is sound and no tensor, `CheckpointError` for damage.
    private func dataset(_ id: hid_t, _ name: String) throws -> Dataset {
      guard let type = HDF5Handle(H5Dget_type(id), { H5Tclose($0) }), let space = HDF5Handle(H5Dget_space(id), { H5Sclose($0) }),
        let properties = HDF5Handle(H5Dget_create_plist(id), { H5Pclose($0) })
      else { throw malformed(name, "libhdf5 cannot describe it") }
      guard let dtype = HDF5Type.dtype(of: type.id, attribute: HDF5Attribute.strings("dtype", of: id)?.first) else {
        throw LeftOut(reason: "an HDF5 type of class \(H5Tget_class(type.id).rawValue), which is no tensor's")
      }
      guard H5Sget_simple_extent_type(space.id) != H5S_NULL else { throw LeftOut(reason: "a dataset without elements") }
      let rank = H5Sget_simple_extent_ndims(space.id)
      guard rank >= 0, rank <= 32, [H5S_SCALAR, H5S_SIMPLE].contains(H5Sget_simple_extent_type(space.id)) else {
        throw malformed(name, "it has no shape")
      }
      var extent = [hsize_t](repeating: 0, count: Int(rank))
      guard rank == 0 || H5Sget_simple_extent_dims(space.id, &extent, nil) == rank else { throw malformed(name, "it has no shape") }
      let shape = extent.map { Int(clamping: $0) }
      guard let bytes = shape.byteCount(bits: dtype.bitCount) else { throw malformed(name, "the size of \(shape) overflows") }
      let info = TensorInfo(dtype: dtype, shape: shape)
      guard bytes > 0 else { return Dataset(info: info, offset: nil) }
      try checkStorage(id, properties.id, name, bytes: bytes, elementSize: dtype.bitCount / 8)
      let isPlain = H5Pget_layout(properties.id) == H5D_CONTIGUOUS && H5Tget_order(type.id) != H5T_ORDER_BE
      // All ones where nothing is allocated.
      let offset = isPlain ? Int(exactly: H5Dget_offset(id)) : nil
      if let offset, offset > fileSize - bytes { throw malformed(name, "its elements lie beyond the end of the file (truncated?)") }
      return Dataset(info: info, offset: offset)
    }

    /// That the elements are in this file, packed by nothing unknown, and no more than what is stored can stand for.
    private func checkStorage(
      _ id: hid_t, _ properties: hid_t, _ name: String, bytes: Int, elementSize: Int
    ) throws {
      let layout = H5Pget_layout(properties)
      guard [H5D_COMPACT, H5D_CONTIGUOUS, H5D_CHUNKED].contains(layout), H5Pget_external_count(properties) <= 0 else {
        throw LeftOut(reason: "its elements lie in other files, which is refused")
      }
      let stored = Int(clamping: H5Dget_storage_size(id))
      guard stored <= fileSize else { throw malformed(name, "\(stored) bytes stored in a file of \(fileSize) (truncated?)") }
      guard bytes <= 1 << 20 || bytes / Inflate.largestRatio <= stored else {
        throw malformed(name, "\(bytes) bytes are declared, \(stored) are stored")
      }
      guard layout == H5D_CHUNKED else { return }
      let filters = H5Pget_nfilters(properties)
      guard filters >= 0 else { throw malformed(name, "damaged filters") }
      for index in 0..<UInt32(filters) {
        var (flags, count, configuration): (UInt32, Int, UInt32) = (0, 0, 0)
        let filter = H5Pget_filter2(properties, index, &flags, &count, nil, 0, nil, &configuration)
        guard [H5Z_FILTER_DEFLATE, H5Z_FILTER_SHUFFLE, H5Z_FILTER_FLETCHER32].contains(filter) else {
          throw LeftOut(reason: "packed by filter \(filter); deflate, shuffle and Fletcher's checksum are read")
        }
      }
      var chunk = [hsize_t](repeating: 0, count: 33)
      let rank = H5Pget_chunk(properties, 32, &chunk)
      guard rank > 0, rank <= 32, let size = (chunk[..<Int(rank)].map { Int(clamping: $0) }).byteCount(bits: 8 * elementSize),
        size <= max(1 << 20, 4 * bytes)
      else { throw malformed(name, "its chunks are larger than it") }
    }
  }
}
