// States that filters of several exports share, on whatever shards these are.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "engine/base/check.h"
#include "engine/filters/fault.h"
#include "engine/filters/throttle.h"

namespace gabion::engine {

// States of one kind by their keys; each lives as long as somebody refers to it. Thread-safe; the
// lock is held to find, make and destroy states only. Outlives all references.
template <typename State>
class SharedStates {
 public:
  // Refers to a state and keeps it; movable.
  class Ref {
   public:
    Ref() = default;
    Ref(Ref&& other) noexcept
        : states_(std::exchange(other.states_, nullptr)),
          key_(std::move(other.key_)),
          state_(std::exchange(other.state_, nullptr)) {}
    Ref& operator=(Ref&& other) noexcept {
      std::swap(states_, other.states_);
      std::swap(key_, other.key_);
      std::swap(state_, other.state_);
      return *this;
    }
    ~Ref() {
      if (states_ != nullptr) states_->Release(key_);
    }

    explicit operator bool() const { return state_ != nullptr; }
    State& operator*() const { return *state_; }
    State* operator->() const { return state_; }

   private:
    friend class SharedStates;
    Ref(SharedStates& states, std::string key, State& state)
        : states_(&states), key_(std::move(key)), state_(&state) {}

    SharedStates* states_ = nullptr;
    std::string key_;
    State* state_ = nullptr;
  };

  // The state of `key`; made by `make()` if there is none.
  template <typename Make>
  Ref Get(const std::string& key, const Make& make) {
    const std::scoped_lock lock(mutex_);
    Slot& slot = slots_[key];
    if (slot.users++ == 0) slot.state = make();
    return Ref(*this, key, *slot.state);
  }

 private:
  struct Slot {
    std::unique_ptr<State> state;
    int users = 0;
  };

  void Release(const std::string& key) {
    const std::scoped_lock lock(mutex_);
    const auto found = slots_.find(key);
    CHECK(found != slots_.end());
    if (--found->second.users == 0) slots_.erase(found);
  }

  std::mutex mutex_;
  std::map<std::string, Slot> slots_;
};

// One of each kind, for an engine.
struct SharedFilterStates {
  SharedStates<filters::ThrottleGroup> throttles;
  SharedStates<filters::FaultState> faults;
  // The engine ends: nothing that takes long is begun any more.
  std::atomic<bool> closing = false;
};

}  // namespace gabion::engine
