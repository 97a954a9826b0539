public import ArgumentParser
public import CompressKit
internal import Foundation

/// The command line as a library function, so that an executable of one's own can add passes.
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

  /// The passes that recipes may name in this process.
  @TaskLocal static var passes = PassCatalog.standard

  /// Runs the command line with the given passes: the main function of an executable.
  public static func main(passes: PassCatalog) async {
    await $passes.withValue(passes) { await main(Array(CommandLine.arguments.dropFirst())) }
  }

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
