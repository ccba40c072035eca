// Waiting for an answer of the engine, which comes through a callback on one of its threads.
#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "engine/engine.h"

namespace gabion::service {

namespace internal {

template <typename T>
struct Answer {
  std::mutex mutex;
  std::condition_variable ready;
  std::optional<T> value;

  // Under the lock to the last: the waiter may destroy this as soon as it sees the value.
  void Set(T given) {
    const std::lock_guard lock(mutex);
    value.emplace(std::move(given));
    ready.notify_one();
  }
};

// Sets the answer once. One that is dropped without having been called (the engine has stopped)
// sets an error (an empty batch), so that nobody waits for ever.
template <typename T>
class Completion {
 public:
  explicit Completion(Answer<T>* answer) : answer_(answer) {}
  Completion(Completion&& other) noexcept : answer_(std::exchange(other.answer_, nullptr)) {}
  Completion& operator=(Completion&&) = delete;
  ~Completion() {
    if (answer_ == nullptr) return;
    if constexpr (std::is_constructible_v<T, absl::Status>) {
      answer_->Set(T(absl::UnavailableError("The data plane has stopped.")));
    } else {
      answer_->Set(T());
    }
  }

  void operator()(T value) { std::exchange(answer_, nullptr)->Set(std::move(value)); }

 private:
  Answer<T>* answer_;
};

}  // namespace internal

// Calls `start` with an engine::Callback<T> and blocks until that has been called. T is
// absl::Status, an absl::StatusOr, or a vector of them (empty if the engine has stopped). Never on
// a thread of the engine or of gRPC.
//
//   auto info = Await<absl::StatusOr<engine::ImageInfo>>(
//       [&](auto done) { engine.StatImage(spec, std::move(done)); });
template <typename T, typename Start>
T Await(Start start) {
  internal::Answer<T> answer;
  start(engine::Callback<T>(internal::Completion<T>(&answer)));
  std::unique_lock lock(answer.mutex);
  answer.ready.wait(lock, [&] { return answer.value.has_value(); });
  return std::move(*answer.value);
}

}  // namespace gabion::service
