#ifndef COMPRESS_CRYPTO_SHIM_H
#define COMPRESS_CRYPTO_SHIM_H

#include <openssl/evp.h>

#endif
