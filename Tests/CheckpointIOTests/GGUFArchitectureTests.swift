import CheckpointIO
import Foundation
import StrictJSON
import TestSupport
import Testing

/// The table of llama.cpp's architectures against the names that the gguf package has (`tools/golden/gguf_names.py`).
struct GGUFArchitectureTests {
  private static func golden() throws -> JSON {
    let file = Places.root.appending(path: "Tests/CheckpointIOTests/Fixtures/gguf-names.json")
    return try #require(try JSON(parsing: Data(contentsOf: file))["architectures"])
  }

  /// The module by which the converters know the experts of a layer once these are joined.
  private static func joined(_ module: String) -> String { module.replacing("*.", with: "") }

  @Test(arguments: GGUFArchitecture.all.indices) func namesAreThoseOfTheGGUFPackage(_ index: Int) throws {
    let layout = GGUFArchitecture.all[index]
    let golden = try #require(try Self.golden()[layout.name], "\(layout.name) is no architecture of llama.cpp")
    let tensors = Set(golden["tensors"]?.elements?.compactMap(\.string) ?? [])
    let modules = try #require(golden["modules"])
    #expect(layout.head == .absent || tensors.contains("output"), "\(layout.name)")
    /// The converters leave the outermost module of BLOOM's names out.
    func known(_ module: String) -> String? { (modules[module] ?? modules[String(module.trimmingPrefix("transformer."))])?.string }
    for (huggingFace, gguf) in layout.names.ends where gguf != "output" || layout.head != .absent {
      #expect(tensors.contains(gguf), "\(layout.name) \(gguf)")
      #expect(known(huggingFace) == gguf, "\(layout.name) \(huggingFace)")
    }
    for (huggingFace, gguf) in layout.names.modules {
      #expect(tensors.contains("blk.0.\(gguf)"), "\(layout.name) \(gguf)")
      let module = "\(layout.names.prefix)0.\(Self.joined(huggingFace))"
      #expect(known(module) == "blk.0.\(gguf)", "\(layout.name) \(module)")
    }
    for (_, gguf) in layout.names.tensors { #expect(tensors.contains("blk.0." + gguf.split(separator: ".")[0]), "\(layout.name) \(gguf)") }
    // What stands in other orders, or as a vector, has a name.
    for module in layout.rows.keys { #expect(layout.names.modules.contains { $0.gguf == module }, "\(layout.name) \(module)") }
  }

  /// No two modules share a name in the file, and every name leads back to where it came from.
  @Test(arguments: GGUFArchitecture.all.indices) func namesGoBothWays(_ index: Int) throws {
    let names = GGUFArchitecture.all[index].names
    var seen: Set<GGUFNames.Place> = []
    let inBlock = names.modules.map { "\(names.prefix)12.\($0.huggingFace.replacing("*", with: "3")).weight" }
    let whole = names.tensors.map { "\(names.prefix)12.\($0.huggingFace)" }
    for name in names.ends.map({ $0.huggingFace + ".weight" }) + inBlock + whole {
      let place = try #require(names.place(of: name), "\(name)")
      #expect(seen.insert(place).inserted, "\(place)")
      #expect(names.huggingFace(of: place.name, expert: place.expert ?? 0) == name)
      #expect(GGUFNames.block(of: place.name) == (name.hasPrefix(names.prefix) ? 12 : nil))
    }
    for stranger in [
      "\(names.prefix)01.self_attn.q_proj.weight", "\(names.prefix)0.other.weight", "other.weight", "lm_head", "\(names.prefix)0.",
    ] {
      #expect(names.place(of: stranger) == nil, "\(stranger)")
    }
    for stranger in ["blk.0.other.weight", "blk.x.attn_q.weight", "blk.0.attn_norm.scale", "rope_freqs.weight", "blk."] {
      #expect(names.huggingFace(of: stranger) == nil, "\(stranger)")
    }
  }

  /// Files without a mark have one layout, and a mark is a tensor of its layout.
  @Test func layoutsOfOneNameAreToldApart() {
    for (name, layouts) in Dictionary(grouping: GGUFArchitecture.all, by: \.name) {
      #expect(layouts.filter { $0.mark == nil }.count == 1, "\(name)")
      #expect(Set(layouts.map(\.mark)).count == layouts.count, "\(name)")
      for layout in layouts {
        if let mark = layout.mark { #expect(layout.names.huggingFace(of: mark) != nil, "\(name) \(mark)") }
        #expect(!layout.modelTypes.isEmpty)
      }
    }
  }

  @Test func rowsOfHeads() {
    // Two heads of four rows: 0, 2, 1, 3 in each.
    #expect(GGUFRows.queries.order(rows: 8, heads: 2, keyValueHeads: 1) == [0, 2, 1, 3, 4, 6, 5, 7])
    #expect(GGUFRows.keys.order(rows: 4, heads: 2, keyValueHeads: 1) == [0, 2, 1, 3])
    // Two groups of two queries, a key and a value, one row each.
    #expect(GGUFRows.groups.order(rows: 8, heads: 4, keyValueHeads: 2) == [0, 1, 4, 5, 2, 6, 3, 7])
    // A query, a key and a value of two rows for each head.
    #expect(GGUFRows.groups.order(rows: 12, heads: 2, keyValueHeads: 2) == [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11])
    // With one key-value head groups lie as llama.cpp wants them.
    #expect(GGUFRows.groups.order(rows: 6, heads: 4, keyValueHeads: 1) == Array(0..<6))
    for (rule, rows) in [(GGUFRows.queries, 24), (.keys, 24), (.groups, 40)] {
      let order = rule.order(rows: rows, heads: 6, keyValueHeads: 2) ?? []
      let inverse = GGUFRows.inverse(order)
      #expect(order.count == rows && order.map { inverse[$0] } == Array(0..<rows), "\(rule)")
    }
    for rule in [GGUFRows.queries, .keys, .groups] {
      #expect(rule.order(rows: 7, heads: 2, keyValueHeads: 2) == nil)
      #expect(rule.order(rows: 8, heads: 0, keyValueHeads: 0) == nil)
    }
  }

  @Test func windowsByPeriod() {
    let every = GGUFWindows(period: 3)
    #expect((0..<6).map { every.slides($0) } == [true, true, false, true, true, false])
    #expect((0..<4).map { every.slides($0, period: 1) } == [false, false, false, false])
    #expect((0..<3).map { every.slides($0, period: 0) } == [true, true, true])
  }
}
