#include "tests/sim/sim_run.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "tests/sim/cow_format.h"
#include "tests/sim/model.h"
#include "tests/sim/pattern_node.h"
#include "tests/sim/qcow2_format.h"
#include "tests/sim/raw_format.h"
#include "tests/sim/sim_world.h"
#include "tests/sim/workload.h"

namespace gabion::sim {
namespace {

constexpr uint64_t kWindow = 512 * kKiB;
constexpr uint64_t kLargeDisk = 2 * kMiB;

ImageSpec RandomSpec(const SimFormat& format, const SimRunOptions& options,
                     test::RandomSource& random) {
  ImageSpec spec;
  spec.variant = random.Next();
  spec.size = random.Between(1, random.PowerOfTwo(64 * kKiB, kLargeDisk));
  spec.windows = {Range(0, spec.size)};
  if (random.OneIn(6)) {
    spec.size = random.Between(1 * kGiB, 6 * kGiB);
    const uint64_t middle = random.Between(kWindow, spec.size - 3 * kWindow);
    spec.windows = {Range(0, kWindow), Range(middle, kWindow), Range(spec.size - kWindow, kWindow)};
  }
  if (!options.backing || !format.can_have_backing() || random.OneIn(2)) return spec;
  spec.backing_size = spec.size;
  if (random.OneIn(2)) spec.backing_size = random.Between(1, spec.size + spec.size / 2);
  uint64_t at = 0;
  for (const ByteRange& window : spec.windows) {
    at = std::max(at, window.offset.value);
    while (true) {
      at += random.OneIn(3) ? 0 : random.Below(random.PowerOfTwo(512, 256 * kKiB));
      const uint64_t end = std::min({at + random.Between(1, random.PowerOfTwo(512, 256 * kKiB)),
                                     window.end().value, *spec.backing_size});
      if (at >= end) break;
      spec.base.push_back(Range(at, end - at));
      at = end + 1;
    }
  }
  return spec;
}

// The state of one simulation. Owned by RunSim().
class Simulation {
 public:
  Simulation(const SimFormat& format, uint64_t seed, const SimRunOptions& options)
      : format_(format),
        options_(options),
        world_(seed),
        content_(world_.random().Next()),
        spec_(RandomSpec(format, options, world_.random())),
        model_(content_, spec_.size, spec_.base),
        disk_(world_.NewDisk()) {
    if (spec_.backing_size) {
      backing_ = std::make_unique<PatternNode>(world_, content_, *spec_.backing_size, spec_.base);
    }
  }

  SimReport Run() {
    Expect("create", world_.Finish(format_.Create(File(true), spec_)));
    for (uint64_t i = 0; i < options_.sessions && report_.findings.empty(); ++i) {
      Check();
      if (report_.findings.empty()) Session();
    }
    if (report_.findings.empty()) Check();
    return std::move(report_);
  }

 private:
  std::unique_ptr<io::File> File(bool writable) {
    SimFileOptions options = format_.FileOptions(spec_);
    options.writable = writable;
    return OpenSimFile(world_, disk_, options);
  }

  void Expect(const char* what, const absl::Status& status) {
    if (!status.ok()) report_.findings.push_back(absl::StrCat(what, ": ", status.ToString()));
  }

  void Check() {
    Expect(untidy_ ? "check after a crash" : "check after a clean close",
           world_.Finish(format_.Check(File(false), spec_, untidy_)));
  }

  // From opening to closing or crashing.
  void Session();
  // Ends it, `image` being closed or dead. True if the power had failed.
  bool Crashed();
  void Use(OpenImage& image);
  void RandomFaults();
  void Collect(const Workload& workload) {
    report_.operations += workload.issued();
    report_.findings.insert(report_.findings.end(), workload.findings().begin(),
                            workload.findings().end());
  }

  const SimFormat& format_;
  const SimRunOptions options_;
  SimWorld world_;
  const Content content_;
  const ImageSpec spec_;
  Model model_;
  SimDisk& disk_;
  std::unique_ptr<PatternNode> backing_;
  SimReport report_;
  bool crashed_ = false;  // before this session, so that what it reads first is lasting
  bool untidy_ = false;   // a crash or a fault since the last clean close may have left leaks
};

void Simulation::RandomFaults() {
  test::RandomSource& random = world_.random();
  if (!options_.faults || !random.OneIn(4)) return;
  const auto rate = [&random] { return random.OneIn(3) ? random.PowerOfTwo(16, 2048) : 0; };
  world_.faults() = SimFaults{.read = rate(),
                              .write = rate(),
                              .zero = rate(),
                              .sync = random.OneIn(3) ? rate() : 0,
                              .no_space = rate()};
  untidy_ = true;
}

bool Simulation::Crashed() {
  if (!world_.crashed()) return false;
  world_.Restart();
  model_.Crash();
  crashed_ = true;
  untidy_ = true;
  ++report_.crashes;
  return true;
}

void Simulation::Session() {
  test::RandomSource& random = world_.random();
  if (random.OneIn(8)) world_.CrashIn(random.Below(200));  // while it is opened and read
  absl::StatusOr<OpenImage> image =
      world_.Finish(format_.Open(File(true), backing_.get(), spec_, world_.ready()));
  if (!image.ok()) {
    if (!Crashed()) Expect("open", image.status());
    return;
  }
  Use(*image);
  world_.faults() = {};
  if (random.OneIn(8)) world_.CrashIn(random.Below(20));  // while it is closed
  const Model::Moment begun = model_.BeginFlush();
  const absl::Status closed = world_.Finish(image->Close());
  // An image that could not be closed, because of earlier faults, is as one that lost its power.
  if (!closed.ok() && untidy_) world_.CrashNow();
  if (Crashed()) return;
  Expect("close", closed);
  model_.EndFlush(begun);
  world_.CancelCrash();
  crashed_ = false;
  ++report_.clean_closes;
}

void Simulation::Use(OpenImage& image) {
  test::RandomSource& random = world_.random();
  WorkloadOptions options;
  options.operations = random.Between(1, options_.operations);
  options.most_in_flight = random.PowerOfTwo(1, 32);
  options.windows = spec_.windows;
  Workload first(world_, model_, content_, image.top(), options);
  world_.Finish(first.Verify(crashed_));
  Collect(first);
  if (world_.crashed() || !report_.findings.empty()) return;
  if (!random.OneIn(6)) world_.CrashIn(random.Below(options.operations * 6));
  RandomFaults();
  options.may_fail = world_.faults().read + world_.faults().write + world_.faults().zero +
                         world_.faults().sync + world_.faults().no_space >
                     0;
  Workload main(world_, model_, content_, image.top(), options);
  world_.Finish(main.Run());
  Collect(main);
}

}  // namespace

SimReport RunSim(const SimFormat& format, uint64_t seed, const SimRunOptions& options) {
  Simulation simulation(format, seed, options);
  return simulation.Run();
}

std::vector<const SimFormat*> AllFormats() { return {&RawFormat(), &Qcow2Format(), &CowFormat()}; }

std::string Describe(const SimFormat& format, uint64_t seed, const SimReport& report) {
  std::string text = absl::StrCat("gabion_sim_run --format ", std::string(format.name()),
                                  " --seed ", seed, " fails:");
  for (const std::string& finding : report.findings) absl::StrAppend(&text, "\n  ", finding);
  return text;
}

}  // namespace gabion::sim
