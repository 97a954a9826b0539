internal import COpenBLAS
internal import CKernels
import Foundation

/// Which of its kernels OpenBLAS uses.
///
/// OpenBLAS chooses by a table of processor models, and what is newer than the table gets kernels of 2004: on a processor with AVX-512 a product
/// then runs at an eighth of what the same library reaches. Where the library shows that it did not recognise the processor, its choice
/// is made anew by what the processor can do.
package enum OpenBLASKernels {
  /// The family in use, as OpenBLAS calls it, such as `Haswell`.
  package static var name: String { openblas_get_corename().map { String(cString: $0) } ?? "unknown" }

  /// To be called once, before the first product. `OPENBLAS_CORETYPE` in the environment wins, as always.
  static func chooseForThisProcessor() {
    let variable = "OPENBLAS_CORETYPE"
    guard name == unrecognised, getenv(variable) == nil else { return }
    let capable: String
    switch Kernel.instructionSet {
    case "avx512": capable = "SkylakeX"
    case "avx2": capable = "Haswell"
    default: return
    }
    // Builds for one kind of processor have neither symbol, and no choice.
    guard let forget = dlsym(nil, "gotoblas_dynamic_quit"), let choose = dlsym(nil, "gotoblas_dynamic_init") else { return }
    typealias Function = @convention(c) () -> Void
    setenv(variable, capable, 1)
    unsafeBitCast(forget, to: Function.self)()
    unsafeBitCast(choose, to: Function.self)()
    unsetenv(variable)
  }

  /// What OpenBLAS falls back to on any 64-bit x86 processor it does not know.
  private static let unrecognised = "Prescott"
}
