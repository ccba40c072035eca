#include "tests/sim/sim_world.h"

#include <cstdio>
#include <utility>

#include "engine/base/check.h"

namespace gabion::sim {
namespace {

// Far more than any run takes; who is not done by then retries for ever.
constexpr uint64_t kMostSteps = 200'000'000;

}  // namespace

SimWorld::SimWorld(uint64_t seed) : seed_(seed), random_(seed) {
  ready_.SetChooser(&SimWorld::Choose, this);
}

SimWorld::~SimWorld() {
  CHECK(waiting_.empty());
  CHECK(ready_.empty());
}

SimDisk& SimWorld::NewDisk() {
  disks_.push_back(std::make_unique<SimDisk>());
  return *disks_.back();
}

std::size_t SimWorld::Choose(void* world, std::size_t count) {
  auto* self = static_cast<SimWorld*>(world);
  if (self->steps_ >= self->crash_at_) self->CrashNow();
  ++self->steps_;
  return self->random_.Below(count);
}

void SimWorld::CrashNow() {
  crash_at_ = kNever;
  if (std::exchange(crashed_, true)) return;
  for (const std::unique_ptr<SimDisk>& disk : disks_) disk->Crash(random_);
}

void SimWorld::Restart() {
  CHECK(waiting_.empty());
  CHECK(ready_.empty());
  CancelCrash();
  crashed_ = false;
}

bool SimWorld::Step() {
  if (!ready_.empty() && (waiting_.empty() || random_.OneIn(2))) {
    ready_.RunOnce();
    return true;
  }
  if (waiting_.empty()) return false;
  std::swap(waiting_[random_.Below(waiting_.size())], waiting_.back());
  ready_.Push(waiting_.back());
  waiting_.pop_back();
  return true;
}

uint64_t SimWorld::RunSteps(uint64_t most) {
  uint64_t ran = 0;
  while (ran < most && Step()) ++ran;
  return ran;
}

void SimWorld::StepOrDie() {
  if (Step() && steps_ < kMostSteps) return;
  std::fprintf(stderr, "simulation: step %llu: %s\n", static_cast<unsigned long long>(steps_),
               steps_ < kMostSteps ? "nothing can run, but not everything is done"
                                   : "this does not come to an end");
  CHECK(false);
}

}  // namespace gabion::sim
