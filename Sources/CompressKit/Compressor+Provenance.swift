internal import CheckpointIO
internal import Foundation
internal import Passes
internal import Recipes
internal import Tensors

// What a report says of where its figures come from, and the recipe as it lies beside the weights.

extension Compressor {
  /// The recipe with every file it names at its absolute path, so that it means the same wherever it is run.
  ///
  /// What is not found stays as it is: nothing of this run reads it.
  func placedRecipe(for checkpoint: Checkpoint) -> Recipe {
    func place(_ path: String) -> String {
      let found = try? TokenSource(text: nil, tokens: path, bases: bases + [checkpoint.directory]).file
      return found?.standardizedFileURL.path ?? path
    }
    func place(_ texts: TextSources?) -> TextSources? {
      guard var texts else { return nil }
      for index in texts.files.indices { texts.files[index].file = place(texts.files[index].file) }
      return texts
    }
    func place(_ source: CalibrationSource?) -> CalibrationSource? {
      guard var source else { return nil }
      source.text = place(source.text)
      source.tokens = source.tokens.map(place)
      source.statistics = source.statistics.map(place)
      return source
    }
    var recipe = recipe
    recipe.model = recipe.model.map { URL(filePath: NSString(string: $0).expandingTildeInPath).standardizedFileURL.path }
    recipe.calibration = place(recipe.calibration)
    recipe.probes = place(recipe.probes)
    recipe.evaluation = recipe.evaluation.map { source in
      var source = source
      (source.text, source.tokens) = (place(source.text), source.tokens.map(place))
      return source
    }
    recipe.passes = recipe.passes.map { pass in
      guard var learning = pass as? any ModelPass, let teacher = learning.teacher else { return pass }
      learning.findTeacher(at: place(teacher))
      return learning
    }
    return recipe
  }

  /// What is known of a run before its work begins.
  ///
  /// - Throws: `CheckpointError` for a file that cannot be read; `CancellationError` when the task is cancelled.
  func provenance(of checkpoint: Checkpoint, _ plan: Plan, _ clock: PhaseClock) throws -> CompressionReport.Run {
    let teachers = try plan.teachers.map { try CompressionReport.ModelRecord(of: $0.checkpoint) }
    return CompressionReport.Run(
      arguments: ProcessInfo.processInfo.arguments, recipe: placedRecipe(for: checkpoint).yaml,
      model: try CompressionReport.ModelRecord(of: checkpoint), teachers: teachers.isEmpty ? nil : teachers,
      data: try data(read: checkpoint, plan), startedAt: clock.start.ISO8601Format(), endedAt: clock.start.ISO8601Format(), phases: [],
      machine: .init(
        processor: Machine.processor, cores: ProcessInfo.processInfo.activeProcessorCount, threads: Parallel.width,
        memoryBytes: Machine.physicalMemory, system: ProcessInfo.processInfo.operatingSystemVersionString))
  }

  /// The files that the run reads tokens or statistics from.
  private func data(read checkpoint: Checkpoint, _ plan: Plan) throws -> [CompressionReport.DataRecord] {
    var named: [(use: CompressionReport.DataRecord.Use, text: TextSources?, tokens: String?)] = []
    if let statistics = plan.statistics {
      named.append((.statistics, nil, statistics.path))
    } else if plan.pipelineUsesCalibration, let source = recipe.calibration, source.sampled == nil {
      named.append((.calibration, source.text, source.tokens))
    }
    if !plan.probes.isEmpty, let source = recipe.probes { named.append((.probes, source.text, source.tokens)) }
    if let source = recipe.evaluation { named.append((.evaluation, source.text, source.tokens)) }
    return try named.flatMap { use, text, tokens in
      try TokenSource(text: text, tokens: tokens, bases: bases + [checkpoint.directory]).files.map { try .init(use, $0) }
    }
  }
}

extension CompressionReport.ModelRecord {
  /// - Throws: `CheckpointError` for a checkpoint that cannot be read.
  init(of checkpoint: Checkpoint) throws {
    path = (checkpoint.inputs.first ?? checkpoint.directory).standardizedFileURL.path
    let configuration = checkpoint.config.path
    let isFile = checkpoint.stamps.contains { $0.path == configuration }
    let holdsWeights = checkpoint.tensors.files.contains { $0.path == configuration }
    configurationSha256 = isFile && !holdsWeights ? try SHA256.of(URL(filePath: configuration)) : nil
    weightsFingerprint = try Fingerprint.of(checkpoint.tensors)
  }
}

extension CompressionReport.DataRecord {
  /// - Throws: `CheckpointError` for a file that cannot be read; `CancellationError` when the task is cancelled.
  init(_ use: Use, _ file: URL) throws {
    self.use = use
    path = file.standardizedFileURL.path
    // What comes through a pipe has been read, and cannot be read again.
    var entry = stat()
    let isFile = stat(file.path, &entry) == 0 && entry.st_mode & S_IFMT == S_IFREG
    bytes = isFile ? Int(entry.st_size) : nil
    sha256 = isFile ? try SHA256.of(file) : nil
  }
}
