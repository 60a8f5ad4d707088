// Reads and writes a few bits of a wide value: CXXRTL's own slice() moves all of it each time.

#pragma once

#include <cstddef>
#include <cstdint>

#include <cxxrtl/cxxrtl.h>

template <std::size_t BITS>
inline cxxrtl::value<BITS> cut(const std::uint32_t* data, std::size_t start) {
  cxxrtl::value<BITS> bits;
  const std::size_t first = start / 32, shift = start % 32;
  for (std::size_t k = 0; 32 * k < BITS; ++k) {
    const std::size_t left = BITS - 32 * k;
    std::uint32_t word = data[first + k] >> shift;
    if (shift && left > 32 - shift) word |= data[first + k + 1] << (32 - shift);
    if (left < 32) word &= (std::uint32_t{1} << left) - 1;
    bits.data[k] = word;
  }
  return bits;
}

template <std::size_t BITS>
inline void put(std::uint32_t* data, std::size_t start, const cxxrtl::value<BITS>& bits) {
  const std::size_t first = start / 32, shift = start % 32;
  for (std::size_t k = 0; 32 * k < BITS; ++k) {
    const std::size_t left = BITS - 32 * k;
    const std::uint64_t mask = ((std::uint64_t{1} << (left < 32 ? left : 32)) - 1) << shift;
    const std::uint64_t word = static_cast<std::uint64_t>(bits.data[k]) << shift;
    std::uint32_t* at = data + first + k;
    at[0] = static_cast<std::uint32_t>((at[0] & ~mask) | word);
    if (mask >> 32) at[1] = static_cast<std::uint32_t>((at[1] & ~(mask >> 32)) | word >> 32);
  }
}
