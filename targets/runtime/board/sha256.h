/* SHA-256 (FIPS 180-4) of a file, for boards without sha256sum. */
#pragma once

#include <stdint.h>

/* The digest of everything that can be read from `descriptor`; 0, or -1 with errno. */
int sha256_of(int descriptor, uint8_t digest[32]);
