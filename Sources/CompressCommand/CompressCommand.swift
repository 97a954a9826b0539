public import ArgumentParser
public import CompressKit
internal import Foundation

/// The command line as a library function, so that an executable of one's own can add passes, formats and families.
public struct CompressCommand: AsyncParsableCommand {
  public static let configuration = CommandConfiguration(
    commandName: "compress",
    abstract: "Compresses language models: a checkpoint in, a recipe of passes over it, a checkpoint that runtimes load out.",
    version: toolkitVersion,
    subcommands: [
      RunCommand.self, QuantizeCommand.self, CalibrateCommand.self, ConvertCommand.self, EvalCommand.self, GenerateCommand.self,
      InspectCommand.self,
      TokenizeCommand.self,
      ListCommand.self, StatusCommand.self, SummaryCommand.self,
    ],
    defaultSubcommand: RunCommand.self)

  public init() {}

  /// What recipes and checkpoints may name in this process.
  @TaskLocal static var toolkit = Toolkit.standard

  /// Runs the command line with the given toolkit: the main function of an executable.
  public static func main(toolkit: Toolkit) async {
    await $toolkit.withValue(toolkit) { await main(Array(CommandLine.arguments.dropFirst())) }
  }

  /// The same for those who add nothing but passes.
  public static func main(passes: PassCatalog) async { await main(toolkit: Toolkit(passes: passes)) }

  /// No option of the default command stands alone, so that a first word which is no command can only be a slip.
  ///
  /// - Throws: `OptionError`.
  private static func checkCommand(_ arguments: [String]) throws(OptionError) {
    let known = configuration.subcommands.compactMap { $0.configuration.commandName } + ["help"]
    guard let word = arguments.first, !word.hasPrefix("-"), !known.contains(word) else { return }
    throw OptionError(option: "command", value: word, known: known)
  }

  public static func main(_ arguments: [String]?) async {
    StandardStreams.prepare()
    EndingSignals.ignoreFileSizeLimit()
    do {
      try checkCommand(arguments ?? Array(CommandLine.arguments.dropFirst()))
      var command = try parseAsRoot(arguments)
      if var runnable = command as? any AsyncParsableCommand { try await runnable.run() } else { try command.run() }
      try MappedFile.checkIntact()
    } catch { Failure(error).exit() }
  }
}
