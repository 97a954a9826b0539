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
      RunCommand.self, CalibrateCommand.self, ConvertCommand.self, EvalCommand.self, GenerateCommand.self, InspectCommand.self,
      TokenizeCommand.self,
      ListCommand.self,
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

  public static func main(_ arguments: [String]?) async {
    StandardStreams.prepare()
    EndingSignals.ignoreFileSizeLimit()
    do {
      var command = try parseAsRoot(arguments)
      if var runnable = command as? any AsyncParsableCommand { try await runnable.run() } else { try command.run() }
      try MappedFile.checkIntact()
    } catch { Failure(error).exit() }
  }
}
