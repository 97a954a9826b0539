import CompressKit
import Testing

@Suite struct NearestNameTests {
  @Test(arguments: [
    ("gtpq", "gptq"), ("GPTQ", "gptq"), ("gpt", "gptq"), ("rnt", "rtn"), ("group-size", "group_size"), ("dampnig", "damping"),
    ("groupsize", "group_size"), ("bit", "bits"),
  ])
  func findsTheSlip(word: String, meant: String) {
    #expect(NearestName.of(word, among: ["rtn", "gptq", "bits", "group_size", "damping", "symmetric"]) == meant)
  }

  @Test(arguments: ["sparsegpt", "temperature", "xxxxxxxx"])
  func keepsSilentAboutOtherWords(word: String) {
    #expect(NearestName.of(word, among: ["rtn", "gptq", "bits"]) == nil)
  }

  @Test func isDeterministicAmongEquals() {
    #expect(NearestName.of("cat", among: ["hat", "bat", "rat"]) == "bat")
    #expect(NearestName.of("cat", among: ["rat", "hat", "bat"]) == "bat")
  }

  @Test func standsEmptyInput() {
    #expect(NearestName.of("word", among: []) == nil)
    #expect(NearestName.of("", among: ["something"]) == nil)
    #expect(NearestName.of("something", among: [""]) == nil)
  }
}
