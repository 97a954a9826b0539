import CompressCommand
import CompressKit

await CompressCommand.main(passes: .standard)
