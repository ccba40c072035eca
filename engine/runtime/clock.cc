#include "engine/runtime/clock.h"

#include "engine/runtime/event.h"
#include "engine/runtime/ready_queue.h"

namespace gabion::runtime {
namespace {

class Alarm final : public Clock::Timer {
 public:
  explicit Alarm(ReadyQueue& ready) : rung(ready) {}
  void Fire() override { rung.Set(true); }
  OneShot<bool> rung;
};

}  // namespace

Task<void> Clock::SleepUntil(Instant deadline) {
  if (Now() >= deadline) co_return;
  Alarm alarm(ready());
  Schedule(alarm, deadline);
  co_await alarm.rung;
}

}  // namespace gabion::runtime
