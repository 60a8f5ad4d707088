// The bench of both compiled engines, Verilator and CXXRTL: plays a job, writes down what it saw.
//
//     bench JOB TRACE [VCD] [+OPTION…]
//
// design.h is generated beside this file for each design. It includes the simulator's own header and
// defines
//
//     DESIGN               the class of the design
//     WITH_VCD             0 or 1: can a waveform be written
//     CLOCK, RESET         names of the members that are ports
//     CONVERGES            CXXRTL: 0 or 1: does one evaluation settle the design
//     PREVIOUS_CLOCK       CXXRTL: name of the member that remembers the clock
//     INPUT(X), OUTPUT(X)  X(payload, valid, ready, bits), one port
//     TAPS(X)              X(payload, valid, bits), any number of them
//
// Both files are little-endian 64-bit words, then bytes. JOB: magic, number of beats, outputs, limit,
// until, length of offer, length of accept, then offer, accept and the beats, a byte for a flag and whole
// bytes for a beat. TRACE: for the input, each tap and the output the number of beats, the cycle of
// each, and their payloads (not for the input: they are the job's). Rules: see brambling.sim.job.
//
// Options: +reset+N holds the reset for N cycles in place of 2; +restart+N plays N cycles of the job
// first, resets, and plays it all. Those of Verilator's run time, such as +verilator+seed+1, are passed
// on.
//
// Says how many outputs it has on standard output about five times a second. Exit status: 0 all
// outputs came, 1 the limit was reached, 2 a file cannot be read or written.

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "design.h"

#ifndef VERILATOR
cxxrtl::module* make_design();
#endif

namespace {

constexpr std::uint64_t MAGIC = 0x31304a474e424d42;  // "BMBNGJ01"
constexpr std::uint64_t RESET_CYCLES = 2;

struct Options {
  std::vector<const char*> files;
  std::vector<char*> verilator;
  std::uint64_t reset = RESET_CYCLES, restart = 0;

  Options(int argc, char** argv) : verilator{argv[0]} {
    for (int n = 1; n < argc; ++n) {
      const std::string text = argv[n];
      if (text[0] != '+') files.push_back(argv[n]);
      else if (text.rfind("+reset+", 0) == 0) reset = std::stoull(text.substr(7));
      else if (text.rfind("+restart+", 0) == 0) restart = std::stoull(text.substr(9));
      else verilator.push_back(argv[n]);
    }
  }
};

[[noreturn]] void fail(const char* what, const char* path) {
  std::fprintf(stderr, "%s %s\n", what, path);
  std::exit(2);
}

// Ports, 32 bits at a time: the simulators' types differ, their order of words does not.

#ifdef VERILATOR

template <typename T>
std::uint32_t word(const T& port, std::size_t k) {
  return static_cast<std::uint32_t>(static_cast<std::uint64_t>(port) >> (32 * k));
}
template <std::size_t N>
std::uint32_t word(const VlWide<N>& port, std::size_t k) {
  return port[k];
}
template <typename T>
void set_word(T& port, std::size_t k, std::uint32_t value) {
  if (k == 0) port = 0;
  port = static_cast<T>(port | static_cast<std::uint64_t>(value) << (32 * k));
}
template <std::size_t N>
void set_word(VlWide<N>& port, std::size_t k, std::uint32_t value) {
  port[k] = value;
}

class Simulation {
 public:
  Simulation(const char* vcd, const Options& options) : context_(options) {
#if WITH_VCD
    if (vcd) {
      context_.traceEverOn(true);
      top.trace(&vcd_, 99);
      vcd_.open(vcd);
      if (!vcd_.isOpen()) fail("cannot write", vcd);
    }
#else
    (void)vcd;
#endif
  }
  ~Simulation() {
    top.final();
#if WITH_VCD
    vcd_.close();
#endif
  }
  void settle() {
    top.CLOCK = 0;
    eval();
  }
  void edge() {
    top.CLOCK = 1;
    eval();
  }

 private:
  void eval() {
    top.eval();
#if WITH_VCD
    if (vcd_.isOpen()) vcd_.dump(time_);
    time_ += 5;
#endif
  }

  // Has its options before the design is made, and with it the initial values.
  struct Context : VerilatedContext {
    explicit Context(Options options) {
      commandArgs(static_cast<int>(options.verilator.size()), options.verilator.data());
    }
  } context_;
#if WITH_VCD
  VerilatedVcdC vcd_;
  std::uint64_t time_ = 0;
#endif

 public:
  DESIGN top{&context_};
};

#else  // CXXRTL

template <std::size_t N>
std::uint32_t word(const cxxrtl::value<N>& port, std::size_t k) {
  return port.data[k];
}
template <std::size_t N>
std::uint32_t word(const cxxrtl::wire<N>& port, std::size_t k) {
  return port.curr.data[k];
}
template <std::size_t N>
void set_word(cxxrtl::value<N>& port, std::size_t k, std::uint32_t value) {
  port.data[k] = value;
}

class Simulation {
 public:
  Simulation(const char* vcd, const Options&) {
#if WITH_VCD
    if (vcd) {
      file_ = std::fopen(vcd, "wb");
      if (!file_) fail("cannot write", vcd);
      cxxrtl::debug_items items;
      module_->debug_info(&items, nullptr, "");
      vcd_.timescale(1, "ns");
      vcd_.add(items);
    }
#else
    (void)vcd;
#endif
  }
  ~Simulation() {
#if WITH_VCD
    if (file_) std::fclose(file_);
#endif
  }
#if WITH_VCD || !CONVERGES
  // Settle with the clock low, then an edge: two steps, each of several evaluations.
  void settle() {
    top.CLOCK.set(false);
    step();
  }
  void edge() {
    top.CLOCK.set(true);
    step();
  }
#else
  // One evaluation computes both the outputs before the edge and the state behind it, which does
  // not take effect before commit().
  void settle() {
    top.CLOCK.set(true);
    module_->eval();
  }
  void edge() {
    module_->commit();
    top.PREVIOUS_CLOCK.set(false);
  }
#endif
 private:
  // Virtual, so that the text of what is called does not become a part of this file.
  std::unique_ptr<cxxrtl::module> module_{make_design()};

 public:
  DESIGN& top = static_cast<DESIGN&>(*module_);

 private:
  void step() {
    module_->step();
#if WITH_VCD
    if (!file_) return;
    vcd_.sample(time_);
    time_ += 5;
    std::fwrite(vcd_.buffer.data(), 1, vcd_.buffer.size(), file_);
    vcd_.buffer.clear();
#endif
  }
#if WITH_VCD
  cxxrtl::vcd_writer vcd_;
  std::FILE* file_ = nullptr;
  std::uint64_t time_ = 0;
#endif
};

#endif

template <typename T>
bool flag(const T& port) {
  return word(port, 0) != 0;
}

template <typename T>
void set(T& port, bool value) {
  set_word(port, 0, value);
}

template <std::size_t BITS, typename T>
void set_payload(T& port, const std::uint8_t* bytes) {
  constexpr std::size_t BYTES = (BITS + 7) / 8;
  for (std::size_t k = 0; k < (BITS + 31) / 32; ++k) {
    std::uint32_t value = 0;
    for (std::size_t b = 0; b < 4 && 4 * k + b < BYTES; ++b)
      value |= static_cast<std::uint32_t>(bytes[4 * k + b]) << (8 * b);
    set_word(port, k, value);
  }
}

// The beats seen on one edge.
struct Seen {
  std::vector<std::uint64_t> cycles;
  std::vector<std::uint8_t> payloads;

  template <std::size_t BITS, typename T>
  void add(std::uint64_t cycle, const T& port) {
    constexpr std::size_t BYTES = (BITS + 7) / 8;
    std::uint8_t bytes[BYTES];
    for (std::size_t k = 0; k < (BITS + 31) / 32; ++k) {
      const std::uint32_t value = word(port, k);
      for (std::size_t b = 0; b < 4 && 4 * k + b < BYTES; ++b)
        bytes[4 * k + b] = static_cast<std::uint8_t>(value >> (8 * b));
    }
    cycles.push_back(cycle);
    payloads.insert(payloads.end(), bytes, bytes + BYTES);
  }
};

std::uint64_t decode(const std::uint8_t* bytes) {
  std::uint64_t value = 0;
  for (int b = 0; b < 8; ++b) value |= static_cast<std::uint64_t>(bytes[b]) << (8 * b);
  return value;
}

void encode(std::uint64_t value, std::uint8_t* bytes) {
  for (int b = 0; b < 8; ++b) bytes[b] = static_cast<std::uint8_t>(value >> (8 * b));
}

struct Job {
  std::vector<std::uint8_t> bytes;
  std::uint64_t beats, outputs, limit, until, offers, accepts;
  const std::uint8_t *offer, *accept, *payloads;

  Job(const char* path, std::size_t beat_bytes) {
    std::FILE* file = std::fopen(path, "rb");
    if (!file) fail("cannot read", path);
    std::uint8_t block[65536];
    for (std::size_t n; (n = std::fread(block, 1, sizeof block, file)) > 0;)
      bytes.insert(bytes.end(), block, block + n);
    std::fclose(file);
    constexpr std::size_t HEAD = 56;
    if (bytes.size() < HEAD || decode(&bytes[0]) != MAGIC) fail("not a job:", path);
    beats = decode(&bytes[8]);
    outputs = decode(&bytes[16]);
    limit = decode(&bytes[24]);
    until = decode(&bytes[32]);
    offers = decode(&bytes[40]);
    accepts = decode(&bytes[48]);
    if (bytes.size() != HEAD + offers + accepts + beats * beat_bytes) fail("not whole:", path);
    offer = bytes.data() + HEAD;
    accept = offer + offers;
    payloads = accept + accepts;
  }
};

// A repeating pattern, by cycle.
class Pattern {
 public:
  Pattern(const std::uint8_t* flags, std::uint64_t length) : flags_(flags), length_(length) {}
  bool next() {
    const bool value = flags_[at_] != 0;
    if (++at_ == length_) at_ = 0;
    return value;
  }

 private:
  const std::uint8_t* flags_;
  std::uint64_t length_, at_ = 0;
};

class Progress {
 public:
  void tell(std::uint64_t outputs) {
    const auto now = std::chrono::steady_clock::now();
    if (now < next_) return;
    next_ = now + std::chrono::milliseconds(200);
    std::printf("%llu\n", static_cast<unsigned long long>(outputs));
    std::fflush(stdout);
  }

 private:
  std::chrono::steady_clock::time_point next_ =
      std::chrono::steady_clock::now() + std::chrono::milliseconds(200);
};

#define INPUT_BITS(payload, valid, ready, bits) constexpr std::size_t IN_BITS = bits;
INPUT(INPUT_BITS)
#define COUNT(payload, valid, bits) +1
constexpr std::size_t TAP_COUNT = 0 TAPS(COUNT);

// Returns whether all outputs came; `seen` is the input, the taps, the output.
bool play(Simulation& simulation, const Job& job, std::uint64_t resets, std::uint64_t limit,
          std::vector<Seen>& seen) {
  auto& top = simulation.top;
  constexpr std::size_t BYTES = (IN_BITS + 7) / 8;
  Seen& input = seen.front();
  Seen& output = seen.back();
  Pattern offer(job.offer, job.offers), accept(job.accept, job.accepts);
  Progress progress;

#define IDLE_INPUT(payload, valid, ready, bits) \
  set_payload<bits>(top.payload, std::vector<std::uint8_t>(BYTES).data()); \
  set(top.valid, false);
#define IDLE_OUTPUT(payload, valid, ready, bits) set(top.ready, false);
  INPUT(IDLE_INPUT)
  OUTPUT(IDLE_OUTPUT)
  set(top.RESET, true);
  for (std::uint64_t cycle = 0; cycle < resets; ++cycle) {
    simulation.settle();
    simulation.edge();
  }
  set(top.RESET, false);

  std::uint64_t sent = 0, got = 0;
  bool held = false;
  for (std::uint64_t cycle = 0; cycle < limit; ++cycle) {
    const bool may_offer = offer.next();
    const bool ready = accept.next();
    const bool was_held = held;
    held = held || (may_offer && sent < job.beats);
#define DRIVE(payload, valid, ready, bits)                                      \
  if (held && !was_held) set_payload<bits>(top.payload, job.payloads + sent * BYTES); \
  set(top.valid, held);
    INPUT(DRIVE)
#define ACCEPT(payload, valid, port, bits) set(top.port, ready);
    OUTPUT(ACCEPT)
    simulation.settle();

#define TAKE(payload, valid, ready, bits)   \
  if (held && flag(top.ready)) {            \
    input.cycles.push_back(cycle);          \
    ++sent;                                 \
    held = false;                           \
  }
    INPUT(TAKE)
    Seen* tap = &input;
#define LISTEN(payload, valid, bits) \
  ++tap;                             \
  if (flag(top.valid)) tap->add<bits>(cycle, top.payload);
    TAPS(LISTEN)
    (void)tap;
#define RECEIVE(payload, valid, port, bits)      \
  if (ready && flag(top.valid)) {                \
    output.add<bits>(cycle, top.payload);        \
    ++got;                                       \
  }
    OUTPUT(RECEIVE)
    if (got >= job.outputs && cycle >= job.until) return true;
    simulation.edge();
    if (cycle % 1024 == 1023) progress.tell(got);
  }
  return false;
}

void write(const char* path, const std::vector<Seen>& seen) {
  std::FILE* file = std::fopen(path, "wb");
  if (!file) fail("cannot write", path);
  for (const Seen& edge : seen) {
    std::vector<std::uint8_t> words(8 * (edge.cycles.size() + 1));
    encode(edge.cycles.size(), &words[0]);
    for (std::size_t n = 0; n < edge.cycles.size(); ++n) encode(edge.cycles[n], &words[8 * (n + 1)]);
    std::fwrite(words.data(), 1, words.size(), file);
    std::fwrite(edge.payloads.data(), 1, edge.payloads.size(), file);
  }
  const bool bad = std::ferror(file) != 0;
  if (std::fclose(file) != 0 || bad) fail("cannot write", path);
}

}  // namespace

int main(int argc, char** argv) {
  const Options options(argc, argv);
  const auto& files = options.files;
  if (files.size() < 2 || files.size() > 3) {
    std::fprintf(stderr, "usage: %s JOB TRACE [VCD] [+OPTION...]\n", argv[0]);
    return 2;
  }
  const Job job(files[0], (IN_BITS + 7) / 8);
  std::vector<Seen> seen(TAP_COUNT + 2);
  bool whole;
  {
    // On the heap: a large design has more state than a stack holds.
    const char* vcd = files.size() == 3 ? files[2] : nullptr;
    const auto simulation = std::make_unique<Simulation>(vcd, options);
    if (options.restart) {
      std::vector<Seen> lost(TAP_COUNT + 2);
      play(*simulation, job, options.reset, options.restart, lost);
    }
    whole = play(*simulation, job, options.restart ? RESET_CYCLES : options.reset, job.limit, seen);
  }
  write(files[1], seen);
  return whole ? 0 : 1;
}
