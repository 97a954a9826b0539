#ifndef COMPRESS_OPENBLAS_SHIM_H
#define COMPRESS_OPENBLAS_SHIM_H

#include <cblas.h>

// The name of the processor family whose kernels are in use.
char *openblas_get_corename(void);

// Debian builds OpenBLAS without LAPACKE, so LAPACK is called by its Fortran symbols.
void dpotrf_(const char *uplo, const int *n, double *a, const int *lda, int *info);
void dsyevd_(
    const char *jobz, const char *uplo, const int *n, double *a, const int *lda, double *w, double *work, const int *lwork, int *iwork,
    const int *liwork, int *info);
void dgeqrf_(const int *m, const int *n, double *a, const int *lda, double *tau, double *work, const int *lwork, int *info);
void dorgqr_(
    const int *m, const int *n, const int *k, double *a, const int *lda, const double *tau, double *work, const int *lwork, int *info);

#endif
