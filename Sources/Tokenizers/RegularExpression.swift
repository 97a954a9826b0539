import CPCRE2

/// A compiled expression in the dialect of the reference (Oniguruma), run by PCRE2.
///
/// Sendable although the compiler cannot see it: PCRE2 does not change compiled code after the JIT pass in `init`, and lets any
/// number of threads match with it; what a match does change belongs to the call of `forEachMatch`.
///
/// Code points are classified as PCRE2's edition of Unicode does: 10.42 has Unicode 14, so what Unicode 15 and 16 added (rare scripts and
/// ideographs) is unassigned to it and not to the reference.
final class RegularExpression: @unchecked Sendable {
  private let code: OpaquePointer
  private let runsMachineCode: Bool
  /// For messages.
  private let field: String
  private let pattern: String

  init(_ pattern: String, field: String) throws(TokenizerError) {
    var translation = PatternTranslation(pattern)
    do throws(PatternTranslation.Refusal) {
      try translation.run()
    } catch {
      throw .unsupportedPattern(field: field, pattern: pattern, construct: error.construct)
    }
    var errorCode: Int32 = 0
    var errorOffset = 0
    let context = pcre2_compile_context_create_8(nil)
    defer { pcre2_compile_context_free_8(context) }
    // The default depends on how the library was built; Oniguruma knows only the line feed.
    pcre2_set_newline_8(context, UInt32(PCRE2_NEWLINE_LF))
    let text = Bytes(translation.output.utf8)
    let options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE
    guard let code = pcre2_compile_8(text, text.count, options, &errorCode, &errorOffset, context) else {
      throw .invalidPattern(field: field, pattern: pattern, code: errorCode)
    }
    self.code = code
    self.field = field
    self.pattern = pattern
    runsMachineCode = pcre2_jit_compile_8(code, PCRE2_JIT_COMPLETE) == 0
  }

  deinit { pcre2_code_free_8(code) }

  /// Calls `body` with each match in each of `ranges` of `text`, which must be UTF-8; a range is a text of its own to the expression.
  ///
  /// - Throws: `TokenizerError.endlessPattern` where the engine would try more than any expression that is meant for text has to.
  func forEachMatch(
    in text: Bytes, ranges: [Range<Int>], _ body: (_ index: Int, _ match: Range<Int>) throws(TokenizerError) -> Void
  ) throws(TokenizerError) {
    let (data, context) = (pcre2_match_data_create_8(1, nil), pcre2_match_context_create_8(nil))
    defer {
      pcre2_match_data_free_8(data)
      pcre2_match_context_free_8(context)
    }
    pcre2_set_depth_limit_8(context, .max)
    pcre2_set_heap_limit_8(context, Self.heapLimit)
    let found: Result<Void, TokenizerError> = text.withUnsafeBufferPointer { bytes in
      do throws(TokenizerError) { return .success(try matches(in: bytes, ranges, data, context, body)) } catch { return .failure(error) }
    }
    try found.get()
  }

  /// Kibibytes that the interpreter may take for what it has not tried yet.
  private static let heapLimit: UInt32 = 1 << 20

  private func matches(
    in bytes: UnsafeBufferPointer<UInt8>, _ ranges: [Range<Int>], _ data: OpaquePointer?, _ context: OpaquePointer?,
    _ body: (_ index: Int, _ match: Range<Int>) throws(TokenizerError) -> Void
  ) throws(TokenizerError) {
    guard let base = bytes.baseAddress else { return }
    for (index, range) in ranges.enumerated() {
      let piece = UnsafeBufferPointer(start: base + range.lowerBound, count: range.count)
      // An expression that looks at every byte some dozens of times stays far below.
      pcre2_set_match_limit_8(context, UInt32(min(1_000_000 + 64 * range.count, Int(UInt32.max))))
      var start = 0
      var lastEnd: Int?
      while start <= piece.count, let match = try firstMatch(in: piece, from: start, data, context) {
        // An empty match right after another is passed over, as the reference does to make progress.
        if match.isEmpty, match.lowerBound == lastEnd {
          start += start < piece.count ? Unicode.Scalar.width(leading: piece[start]) : 1
          continue
        }
        try body(index, range.lowerBound + match.lowerBound..<range.lowerBound + match.upperBound)
        start = match.upperBound
        lastEnd = match.upperBound
      }
    }
  }

  private func firstMatch(
    in piece: UnsafeBufferPointer<UInt8>, from start: Int, _ data: OpaquePointer?, _ context: OpaquePointer?
  ) throws(TokenizerError) -> Range<Int>? {
    var result = PCRE2_ERROR_JIT_STACKLIMIT
    if runsMachineCode { result = pcre2_jit_match_8(code, piece.baseAddress, piece.count, start, 0, data, context) }
    // Machine code has 32 KiB of stack; the interpreter goes on where an expression needs more.
    if result == PCRE2_ERROR_JIT_STACKLIMIT {
      result = pcre2_match_8(code, piece.baseAddress, piece.count, start, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data, context)
    }
    if result == PCRE2_ERROR_NOMATCH { return nil }
    guard result >= 0 else { throw .endlessPattern(field: field, pattern: pattern) }
    let bounds = pcre2_get_ovector_pointer_8(data)
    guard let bounds, bounds[0] <= bounds[1] else { return nil }
    return bounds[0]..<bounds[1]
  }
}
