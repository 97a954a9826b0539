import CompressKit

/// A sink that keeps what it is given.
actor Blocks: BlockSink {
  private(set) var all: [Block] = []
  func append(_ block: Block) { all.append(block) }
}
