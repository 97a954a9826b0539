// Codes of 1 to 8 bits in a little-endian bit string of 32-bit words; a code may straddle two words.
#include "dispatch.h"

BODY void compress_pack_bits_body(const uint8_t *codes, size_t count, unsigned bits, uint32_t *words) {
  if (bits == 4) {
    // Nibbles never straddle: eight codes are one number of 64 bits, whose halves are pushed together three times.
    size_t word = 0;
    for (; (word + 1) * 8 <= count; word++) {
      uint64_t value;
      memcpy(&value, codes + word * 8, sizeof value);
      value &= 0x0F0F0F0F0F0F0F0Fu;
      value = (value | value >> 4) & 0x00FF00FF00FF00FFu;
      value = (value | value >> 8) & 0x0000FFFF0000FFFFu;
      words[word] = (uint32_t)(value | value >> 16);
    }
    if (word * 8 < count) {
      uint32_t value = 0;
      for (unsigned k = 0; word * 8 + k < count; k++) value |= (uint32_t)(codes[word * 8 + k] & 15u) << (4 * k);
      words[word] = value;
    }
    return;
  }
  uint64_t held = 0;
  unsigned filled = 0;
  for (size_t i = 0; i < count; i++) {
    held |= (uint64_t)(codes[i] & ((1u << bits) - 1u)) << filled;
    filled += bits;
    if (filled >= 32) {
      *words++ = (uint32_t)held;
      held >>= 32;
      filled -= 32;
    }
  }
  if (filled > 0) *words = (uint32_t)held;
}
VARIANTS(
    void, compress_pack_bits, (const uint8_t *codes, size_t count, unsigned bits, uint32_t *words), (codes, count, bits, words))

BODY void compress_unpack_bits_body(const uint32_t *words, size_t count, unsigned bits, uint8_t *codes) {
  const uint32_t mask = (1u << bits) - 1u;
  uint64_t held = 0;
  unsigned available = 0;
  for (size_t i = 0; i < count; i++) {
    if (available < bits) {
      held |= (uint64_t)*words++ << available;
      available += 32;
    }
    codes[i] = (uint8_t)((uint32_t)held & mask);
    held >>= bits;
    available -= bits;
  }
}
VARIANTS(
    void, compress_unpack_bits, (const uint32_t *words, size_t count, unsigned bits, uint8_t *codes), (words, count, bits, codes))
