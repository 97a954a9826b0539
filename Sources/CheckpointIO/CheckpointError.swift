/// What can be wrong with a checkpoint on disk, or with writing one.
public enum CheckpointError: Error, Equatable, Sendable {
  case missingFile(path: String)
  case unreadable(path: String, reason: String)
  /// A file has lost its end while it was read.
  case cutShort(path: String)
  /// The container's header breaks the format. `offset` counts bytes from the start of the file.
  case malformedHeader(path: String, offset: Int, reason: String)
  /// The file may well be sound, but uses what is not read here.
  case notRead(path: String, reason: String)
  case malformedTensor(path: String, tensor: String, offset: Int, reason: String)
  case wrongLength(path: String, needed: Int, found: Int)
  case malformedIndex(path: String, reason: String)
  case malformedConfiguration(path: String, reason: String)
  case missingTensor(name: String)
  case wrongShape(tensor: String, expected: [Int], found: [Int])
  case unusableType(tensor: String, dtype: String, use: String)
  case nonfiniteWeight(tensor: String)
  /// A tensor stands below a compressed module, and nothing is known of what it means for the weight.
  case unknownComponent(tensor: String, module: String)
  case unsupportedModel(type: String, known: [String])
  case unsupportedOption(option: String, value: String, reason: String)
  /// `config.json` of this family has no words for what a run made of the model.
  case inexpressible(type: String, reason: String)
  case exists(path: String)
  /// Another run makes the same output.
  case busy(path: String, holder: String)
  /// What lies there is not to be replaced.
  case cannotReplace(path: String, reason: String)
  /// A file is not what it was when it was opened.
  case changed(path: String, reason: String)
  case cannotWrite(path: String, reason: String)
}

extension CheckpointError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .missingFile(let path): "\(path): no such file"
    case .unreadable(let path, let reason): "\(path): cannot be read: \(reason)"
    case .cutShort(let path): "\(path): another program cut the file short while it was read"
    case .malformedHeader(let path, let offset, let reason): "\(path): malformed header at byte \(offset): \(reason)"
    case .notRead(let path, let reason): "\(path): \(reason)"
    case .malformedTensor(let path, let tensor, let offset, let reason):
      "\(path): tensor \"\(tensor)\" (header entry at byte \(offset)): \(reason)"
    case .wrongLength(let path, let needed, let found):
      "\(path): the header describes \(needed) bytes, the file has \(found)\(found < needed ? " (truncated?)" : "")"
    case .malformedIndex(let path, let reason): "\(path): \(reason)"
    case .malformedConfiguration(let path, let reason): "\(path): \(reason)"
    case .missingTensor(let name): "tensor \"\(name)\" is not in the checkpoint"
    case .wrongShape(let tensor, let expected, let found): "tensor \"\(tensor)\" has shape \(found), config.json implies \(expected)"
    case .unusableType(let tensor, let dtype, let use): "tensor \"\(tensor)\" is stored as \(dtype), which cannot be used as \(use)"
    case .nonfiniteWeight(let tensor): "tensor \"\(tensor)\" holds NaN or infinity"
    case .unknownComponent(let tensor, let module):
      "tensor \"\(tensor)\" may be part of what stores \(module), and this kind of part is not known"
    case .unsupportedModel(let type, let known):
      "model type \"\(type)\" is not supported; known: \(known.joined(separator: ", "))"
    case .unsupportedOption(let option, let value, let reason): "config.json: \(option) = \(value): \(reason)"
    case .inexpressible(let type, let reason): "config.json of a \(type) model cannot say that \(reason)"
    case .exists(let path): "\(path) exists already"
    case .busy(let path, let holder): "\(path) is being made by \(holder)"
    case .cannotReplace(let path, let reason): "\(path) is not replaced: \(reason)"
    case .changed(let path, let reason): "\(path): \(reason) since this run began to read it"
    case .cannotWrite(let path, let reason): "\(path): cannot be written: \(reason)"
    }
  }

  /// What the user can do next, where there is something general to say.
  public var hint: String? {
    switch self {
    case .wrongLength, .malformedHeader, .malformedTensor: "fetch the file again and compare its checksum with the publisher's"
    case .cutShort: "wait until nobody writes the model any more, and run the command again"
    case .notRead: "nothing says that the file is damaged; save or convert it again as what is read"
    case .unknownComponent:
      "export the model without what adds such tensors, or in another format; read without them, its weights could be wrong"
    case .nonfiniteWeight: "the checkpoint is damaged, or was saved from a run that had diverged"
    case .exists: "choose another --output, or pass --overwrite, which replaces what this program made once the new one is complete"
    case .busy: "wait for it, end it, or choose another --output"
    case .cannotReplace: "choose another --output; --overwrite replaces only what this program made"
    case .changed: "run again once nothing writes to the model's files; no output was made"
    case .cannotWrite: "make room or choose another --output; what had that name before is as it was"
    default: nil
    }
  }
}
