internal import COpenBLAS

/// The few BLAS and LAPACK routines in use, row-major, on the calling thread.
///
/// Threads are `Parallel`'s alone: OpenBLAS called from several threads must run single-threaded inside, or sections nest.
package enum BLAS {
  private static let singleThreaded: Void = {
    OpenBLASKernels.chooseForThisProcessor()
    openblas_set_num_threads(1)
  }()

  /// c ← α · op(a) · op(b) + β · c, with op(a) [rows × inner], op(b) [inner × columns], and the strides of the matrices as stored.
  package static func product(
    _ a: UnsafePointer<Float>, stride aStride: Int, leftTransposed aTransposed: Bool = false,
    _ b: UnsafePointer<Float>, stride bStride: Int, rightTransposed bTransposed: Bool = false,
    rows: Int, columns: Int, inner: Int, alpha: Float = 1, beta: Float = 0,
    into c: UnsafeMutablePointer<Float>, stride cStride: Int
  ) {
    _ = singleThreaded
    cblas_sgemm(
      CblasRowMajor, aTransposed ? CblasTrans : CblasNoTrans, bTransposed ? CblasTrans : CblasNoTrans,
      blasint(rows), blasint(columns), blasint(inner), alpha, a, blasint(aStride), b, blasint(bStride), beta, c, blasint(cStride))
  }

  /// The lower triangle of c ← aᵀ · a for a [inner × size].
  package static func gramLower(
    _ a: UnsafePointer<Float>, stride: Int, size: Int, inner: Int, into c: UnsafeMutablePointer<Float>, stride cStride: Int
  ) {
    _ = singleThreaded
    cblas_ssyrk(CblasRowMajor, CblasLower, CblasTrans, blasint(size), blasint(inner), 1, a, blasint(stride), 0, c, blasint(cStride))
  }

  /// c ← c − a · bᵀ in double, for a [rows × inner], b [columns × inner].
  package static func subtractProduct(
    _ a: UnsafePointer<Double>, _ b: UnsafePointer<Double>, stride: Int, rows: Int, columns: Int, inner: Int,
    from c: UnsafeMutablePointer<Double>
  ) {
    _ = singleThreaded
    cblas_dgemm(
      CblasRowMajor, CblasNoTrans, CblasTrans, blasint(rows), blasint(columns), blasint(inner), -1, a, blasint(stride), b,
      blasint(stride), 1, c, blasint(stride))
  }

  /// c ← c − a · bᵀ in double, with strides of their own.
  package static func subtractProduct(
    _ a: UnsafePointer<Double>, stride aStride: Int, _ b: UnsafePointer<Double>, stride bStride: Int, rows: Int, columns: Int, inner: Int,
    from c: UnsafeMutablePointer<Double>, stride cStride: Int
  ) {
    _ = singleThreaded
    cblas_dgemm(
      CblasRowMajor, CblasNoTrans, CblasTrans, blasint(rows), blasint(columns), blasint(inner), -1, a, blasint(aStride), b,
      blasint(bStride), 1, c, blasint(cStride))
  }

  /// b ← b · l⁻ᵀ for a lower triangle l [size × size] and b [rows × size].
  package static func solveLowerTransposed(
    _ l: UnsafePointer<Double>, size: Int, stride: Int, _ b: UnsafeMutablePointer<Double>, rows: Int
  ) {
    _ = singleThreaded
    cblas_dtrsm(
      CblasRowMajor, CblasRight, CblasLower, CblasTrans, CblasNonUnit, blasint(rows), blasint(size), 1, l, blasint(stride), b,
      blasint(stride))
  }

  /// b ← b · (l · lᵀ)⁻¹ for a lower triangle l [size × size] and b [rows × size].
  package static func solveCholesky(_ l: UnsafePointer<Double>, size: Int, _ b: UnsafeMutablePointer<Double>, rows: Int) {
    _ = singleThreaded
    for transposed in [true, false] {
      cblas_dtrsm(
        CblasRowMajor, CblasRight, CblasLower, transposed ? CblasTrans : CblasNoTrans, CblasNonUnit, blasint(rows), blasint(size), 1, l,
        blasint(size), b, blasint(size))
    }
  }

  /// b ← b · u⁻¹, or b · u⁻ᵀ, for a unit upper triangle u [size × size] and b [rows × size].
  package static func solveUnitUpper(
    _ u: UnsafePointer<Float>, size: Int, transposed: Bool, _ b: UnsafeMutablePointer<Float>, rows: Int
  ) {
    _ = singleThreaded
    cblas_strsm(
      CblasRowMajor, CblasRight, CblasUpper, transposed ? CblasTrans : CblasNoTrans, CblasUnit, blasint(rows), blasint(size), 1, u,
      blasint(size), b, blasint(size))
  }

  /// b ← l⁻¹ · b, or l⁻ᵀ · b, for a unit lower triangle l [size × size] and b [size × columns]; only what is below the diagonal is looked at.
  package static func solveUnitLower(
    _ l: UnsafePointer<Float>, size: Int, transposed: Bool = false, _ b: UnsafeMutablePointer<Float>, columns: Int
  ) {
    _ = singleThreaded
    cblas_strsm(
      CblasRowMajor, CblasLeft, CblasLower, transposed ? CblasTrans : CblasNoTrans, CblasUnit, blasint(size), blasint(columns), 1, l,
      blasint(size), b,
      blasint(columns))
  }

  /// Eigenvalues in ascending order and eigenvectors, as rows, of the symmetric matrix a [size × size], which is overwritten by them.
  ///
  /// - Returns: `nil` where the iteration did not converge.
  package static func symmetricEigenvectors(_ a: inout [Double], size: Int) -> [Double]? {
    _ = singleThreaded
    var (n, info) = (blasint(size), blasint(0))
    var values = [Double](repeating: 0, count: size)
    var (work, integers) = ([0.0], [blasint(0)])
    var (workSize, integerSize) = (blasint(-1), blasint(-1))
    // The first call only asks for the size of the workspace.
    for _ in 0..<2 {
      dsyevd_("V", "U", &n, &a, &n, &values, &work, &workSize, &integers, &integerSize, &info)
      guard info == 0 else { return nil }
      if workSize == -1 {
        (workSize, integerSize) = (blasint(work[0]), integers[0])
        work = Array(repeating: 0, count: Int(workSize))
        integers = Array(repeating: 0, count: Int(integerSize))
      }
    }
    return values
  }

  /// Factors the lower triangle of a [size × size] in place as l · lᵀ. Returns whether `a` is positive definite.
  package static func choleskyLower(_ a: UnsafeMutablePointer<Double>, size: Int, stride: Int) -> Bool {
    _ = singleThreaded
    var (n, lead, info) = (blasint(size), blasint(stride), blasint(0))
    // LAPACK counts column-major, where our lower triangle is the upper one.
    dpotrf_("U", &n, a, &lead, &info)
    return info == 0
  }

  /// c ← op(a) · b in double, with op(a) [rows × inner] and b [inner × columns].
  package static func product(
    _ a: UnsafePointer<Double>, stride aStride: Int, leftTransposed: Bool = false, _ b: UnsafePointer<Double>, stride bStride: Int,
    rows: Int, columns: Int, inner: Int, into c: UnsafeMutablePointer<Double>, stride cStride: Int
  ) {
    _ = singleThreaded
    cblas_dgemm(
      CblasRowMajor, leftTransposed ? CblasTrans : CblasNoTrans, CblasNoTrans, blasint(rows), blasint(columns), blasint(inner), 1, a,
      blasint(aStride), b, blasint(bStride), 0, c, blasint(cStride))
  }

  /// Replaces a [size × size] by the orthogonal factor of its QR decomposition with a positive diagonal in R, read column-major.
  /// Returns false where LAPACK refused, which it does only for sizes it cannot address.
  package static func orthogonalize(_ a: UnsafeMutablePointer<Double>, size: Int) -> Bool {
    _ = singleThreaded
    guard size > 0 else { return true }
    var (n, info) = (blasint(size), blasint(0))
    var tau = [Double](repeating: 0, count: size)
    // With a negative length LAPACK only says how much workspace it wants.
    var (query, length) = ([Double](repeating: 0, count: 1), blasint(-1))
    dgeqrf_(&n, &n, a, &n, &tau, &query, &length, &info)
    guard info == 0 else { return false }
    length = blasint(query[0])
    var work = [Double](repeating: 0, count: Int(length))
    dgeqrf_(&n, &n, a, &n, &tau, &work, &length, &info)
    guard info == 0 else { return false }
    let isNegative = (0..<size).map { a[$0 * (size + 1)] < 0 }
    length = -1
    dorgqr_(&n, &n, &n, a, &n, tau, &query, &length, &info)
    guard info == 0 else { return false }
    length = blasint(query[0])
    work = [Double](repeating: 0, count: Int(length))
    dorgqr_(&n, &n, &n, a, &n, tau, &work, &length, &info)
    guard info == 0 else { return false }
    for column in 0..<size where isNegative[column] { for row in 0..<size { a[column * size + row].negate() } }
    return true
  }
}
