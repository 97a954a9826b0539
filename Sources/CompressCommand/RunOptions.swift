import ArgumentParser
import CompressKit
import Foundation

/// What commands that run a recipe have in common, wherever the recipe comes from.
struct RunOptions: ParsableArguments {
  @Option(
    name: .long,
    help: ArgumentHelp(
      "The directory to make (default: the recipe's; of quantize, the model's name and the scheme's).", valueName: "dir"),
    completion: .directory)
  var output: String?

  @Option(
    name: .long, parsing: .singleValue,
    help: ArgumentHelp("Change the recipe, such as passes.gptq.bits=3; may be repeated.", valueName: "key=value"))
  var set: [String] = []

  @Flag(name: .long, help: "Print what would be done to every linear, with sizes and estimates, and stop.")
  var dryRun = false

  @Flag(name: .long, help: "Print the effective recipe, all defaults included, and stop.")
  var printRecipe = false

  @Option(name: .long, help: ArgumentHelp("Seed of everything random; the recipe's otherwise.", valueName: "n"))
  var seed: UInt64?

  @Flag(name: .long, help: "Fail where a layer cannot be done as asked, instead of falling back and reporting it.")
  var strict = false

  @Flag(name: .long, help: "Replace an existing output once the new one is complete.")
  var overwrite = false

  @Flag(name: .long, help: "Start over, whatever an interrupted run with this output has done.")
  var fresh = false

  @Flag(name: .long, help: "Keep nothing that an interrupted run could go on from.")
  var noJournal = false

  @Flag(name: .long, help: "Print the report as JSON instead of a table.")
  var json = false

  @OptionGroup var machine: MachineOptions

  /// Prints the recipe, prints the plan, or runs.
  ///
  /// - Parameters:
  ///   - model: what the command names; the recipe may name one, too.
  ///   - otherwise: the output where neither the command nor the recipe names one.
  ///   - bases: where the recipe's files are looked for besides the working directory.
  func run(_ recipe: Recipe, on model: String?, into otherwise: String? = nil, bases: [URL]) async throws {
    var recipe = recipe
    if let seed { recipe.seed = seed }
    let progress = Progress(machine.progress)
    defer { progress.end() }
    // A run says them itself.
    if printRecipe || dryRun { for remark in recipe.remarks { progress.observe(.remark(remark)) } }
    if printRecipe { return try printResult(recipe.yaml) }
    guard let model = model ?? recipe.model else {
      throw ValidationError("--model is needed: neither the command nor the recipe names one")
    }
    if fresh, noJournal { throw ValidationError("--fresh starts a journal anew and --no-journal has none; give one of them") }
    var compressor = Compressor(
      recipe: recipe, toolkit: CompressCommand.toolkit, bases: [URL(filePath: FileManager.default.currentDirectoryPath)] + bases,
      memoryLimit: try machine.memory(), strict: strict, overwrite: overwrite)
    compressor.resumption = noJournal ? .keepNothing : fresh ? .startOver : .goOn
    let directory = URL(userPath: model)
    if dryRun {
      let (dryRunJSON, width) = (json, machine)
      return try printResult(
        try await width.run { [compressor] in
          let checkpoint = try Checkpoint(directory)
          let plan = try compressor.plan(checkpoint)
          return dryRunJSON ? plan.json.text(indent: 2) : plan.text
        })
    }
    guard let output = output ?? recipe.output.directory ?? otherwise else {
      throw ValidationError("--output is needed: neither the command nor the recipe names one")
    }
    let destination = URL(userPath: output)
    let report: CompressionReport
    do {
      report = try await machine.run { [compressor] in
        try await compressor.run(try Checkpoint(directory), to: destination, observer: progress)
      }
    } catch  where !(error is OtherRun) {
      guard let place = try? OutputState.journalPlace(of: destination), let journal = RunJournal(at: place),
        !journal.isDone(with: destination)
      else { throw error }
      throw KeptRun(cause: error, journal: place.path, doingWithout: "run with --no-journal")
    }
    progress.end()
    try printResult(json ? report.json : report.table(model: model, output: output))
  }
}
