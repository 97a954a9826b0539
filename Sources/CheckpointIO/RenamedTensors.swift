public import Foundation
public import Tensors

/// Tensors whose modules are known by other names than their file gives them.
public struct RenamedTensors: TensorSource {
  public let names: [String]
  public let base: any TensorSource
  private let stored: [String: String]

  /// - Parameters:
  ///   - base: the tensors under the names of the file.
  ///   - modules: what a module of the file is called here; all others keep their names.
  public init(_ base: any TensorSource, modules: [String: String]) {
    self.base = base
    var (names, stored): ([String], [String: String]) = ([], [:])
    for name in base.names {
      let own = Self.renamed(name, modules)
      names.append(own)
      stored[own] = name
    }
    (self.names, self.stored) = (names, stored)
  }

  /// The longest leading part of a name that is a module decides.
  private static func renamed(_ name: String, _ modules: [String: String]) -> String {
    var end = name.endIndex
    while let dot = name[..<end].lastIndex(of: ".") {
      if let own = modules[String(name[..<dot])] { return own + name[dot...] }
      end = dot
    }
    return name
  }

  public var remarks: [String] { base.remarks }
  public var files: [URL] { base.files }

  public func info(_ name: String) -> TensorInfo? { stored[name].flatMap { base.info($0) } }

  public func tensor(_ name: String) throws(CheckpointError) -> Tensor {
    guard let name = stored[name] else { throw .missingTensor(name: name) }
    return try base.tensor(name)
  }
}
