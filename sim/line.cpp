// A device at the end of a UART line, for brambling.sim.link: bytes to and from the compiled design.
//
//     line DIVISOR
//
// design.h beside this file names the design's members: DESIGN, CLOCK, PREVIOUS_CLOCK, RESET, RX, TX,
// and says whether one evaluation settles the design (CONVERGES).
//
// Commands come on standard input, answers go to standard output; both little-endian 32-bit words and
// bytes. A command is two words, COUNT and CYCLES, and COUNT bytes to send. Then the device runs until
// it has said something and the line is idle both ways, but for CYCLES clocks at most; those that the
// bytes to send take are not counted. The answer is two words, the number of bytes that came and the
// clocks that passed, and the bytes. The end of the input ends the program.
//
// The line has no hardware of its own: a byte without its stop bit is told as it was read.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "design.h"

cxxrtl::module* make_design();

namespace {

constexpr int BITS = 10;  // Start, 8, stop.
constexpr int RESET_CYCLES = 2;

class Device {
 public:
  explicit Device(std::uint32_t divisor) : divisor_(divisor) {
    top_.RX.set(true);
    top_.RESET.set(true);
    for (int n = 0; n < RESET_CYCLES; ++n) tick();
    top_.RESET.set(false);
  }

  // Runs a clock; `send` is the level of the line to the device. Returns that from it.
  bool clock(bool send) {
    top_.RX.set(send);
    return tick();
  }

  std::uint32_t divisor() const { return divisor_; }

 private:
  // Returns the line from the device as it is just before the edge.
  bool tick() {
#if CONVERGES
    // One evaluation computes both that and the state behind the edge.
    top_.CLOCK.set(true);
    module_->eval();
    const bool said = top_.TX.template get<bool>();
    module_->commit();
    top_.PREVIOUS_CLOCK.set(false);
#else
    top_.CLOCK.set(false);
    module_->step();
    const bool said = top_.TX.template get<bool>();
    top_.CLOCK.set(true);
    module_->step();
#endif
    return said;
  }

  std::uint32_t divisor_;
  std::unique_ptr<cxxrtl::module> module_{make_design()};
  DESIGN& top_ = static_cast<DESIGN&>(*module_);
};

// Bytes to levels, one after the other without a pause.
class Sender {
 public:
  explicit Sender(std::uint32_t divisor) : divisor_(divisor) {}
  void put(const std::vector<std::uint8_t>& bytes) {
    queue_.insert(queue_.end(), bytes.begin(), bytes.end());
  }
  bool busy() const { return at_ < queue_.size(); }
  bool level() {
    if (!busy()) return true;
    const std::uint32_t frame = 0x200u | queue_[at_] << 1;  // Stop, 8, start.
    const bool now = frame >> bit_ & 1;
    if (++clock_ == divisor_) {
      clock_ = 0;
      if (++bit_ == BITS) {
        bit_ = 0;
        if (++at_ == queue_.size()) {
          queue_.clear();
          at_ = 0;
        }
      }
    }
    return now;
  }

 private:
  std::uint32_t divisor_, clock_ = 0, bit_ = 0;
  std::vector<std::uint8_t> queue_;
  std::size_t at_ = 0;
};

// Levels to bytes, each bit read in its middle.
class Receiver {
 public:
  explicit Receiver(std::uint32_t divisor) : divisor_(divisor) {}
  bool idle() const { return !busy_; }
  std::vector<std::uint8_t> bytes;
  void level(bool now) {
    if (!busy_) {
      if (now) return;
      busy_ = true;
      left_ = divisor_ / 2;
      bit_ = 0;
      value_ = 0;
    }
    if (left_-- != 0) return;
    left_ = divisor_ - 1;
    if (bit_ == 0 && now) {  // A start bit that is gone in its middle is none.
      busy_ = false;
      return;
    }
    value_ |= static_cast<std::uint32_t>(now) << bit_;
    if (++bit_ == BITS) {
      bytes.push_back(static_cast<std::uint8_t>(value_ >> 1));
      busy_ = false;
    }
  }

 private:
  std::uint32_t divisor_, left_ = 0, bit_ = 0, value_ = 0;
  bool busy_ = false;
};

bool read_words(std::uint32_t* words, std::size_t count) {
  for (std::size_t n = 0; n < count; ++n) {
    std::uint8_t bytes[4];
    if (std::fread(bytes, 1, 4, stdin) != 4) return false;
    words[n] = 0;
    for (int b = 0; b < 4; ++b) words[n] |= static_cast<std::uint32_t>(bytes[b]) << (8 * b);
  }
  return true;
}

void write_word(std::uint32_t word) {
  for (int b = 0; b < 4; ++b) std::putchar(static_cast<int>(word >> (8 * b) & 0xff));
}

// Plays one command; returns the clocks that passed.
std::uint32_t play(Device& device, Sender& sender, Receiver& receiver, std::uint32_t cycles) {
  const std::uint32_t quiet = 2 * BITS * device.divisor();  // No byte for so long: the line is idle.
  std::uint32_t passed = 0, waited = 0, still = 0;
  for (;;) {
    const bool sending = sender.busy();
    if (!sending && waited >= cycles && receiver.idle()) break;
    if (!sending && !receiver.bytes.empty() && still >= quiet) break;
    receiver.level(device.clock(sender.level()));
    ++passed;
    if (!sending) ++waited;
    still = receiver.idle() ? still + 1 : 0;
  }
  return passed;
}

}  // namespace

int main(int argc, char** argv) {
  const int divisor = argc == 2 ? std::atoi(argv[1]) : 0;
  if (divisor < 1) {
    std::fprintf(stderr, "usage: %s DIVISOR\n", argv[0]);
    return 2;
  }
  Device device(static_cast<std::uint32_t>(divisor));
  Sender sender(device.divisor());
  Receiver receiver(device.divisor());
  std::uint32_t words[2];
  while (read_words(words, 2)) {
    std::vector<std::uint8_t> bytes(words[0]);
    if (std::fread(bytes.data(), 1, bytes.size(), stdin) != bytes.size()) break;
    sender.put(bytes);
    const std::uint32_t passed = play(device, sender, receiver, words[1]);
    write_word(static_cast<std::uint32_t>(receiver.bytes.size()));
    write_word(passed);
    std::fwrite(receiver.bytes.data(), 1, receiver.bytes.size(), stdout);
    std::fflush(stdout);
    receiver.bytes.clear();
  }
  return 0;
}
