import CompressCommand
import CompressKit

await CompressCommand.main(toolkit: .standard)
