// A client that follows the resources of a domain by watching.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "service/domain/domain.h"
#include "service/domain/watcher.h"

namespace gabion::service {

// What is told of a resource, but for what is only measured or told anew after a restart.
inline std::string ContentOf(v1::Image image) {
  image.clear_conditions();
  return image.DebugString();
}
inline std::string ContentOf(v1::Export exported) {
  exported.clear_conditions();
  return exported.DebugString();
}
inline std::string ContentOf(const v1::Filter& filter) { return filter.DebugString(); }
inline std::string ContentOf(const v1::Connection& connection) { return connection.DebugString(); }

// Applies what it is told to what it knows. Remembers what it knew after some messages, so that it
// can go on from each of them. Owned by the test, one thread.
class WatchFollower {
 public:
  using Known = std::map<std::string, std::string>;  // content by name

  // Forgets all and begins with what there is.
  void Begin(Domain& domain) {
    known_.clear();
    moments_.clear();
    v1::WatchRequest request;
    request.set_send_initial(true);
    Start(domain, request);
  }
  // Goes on behind the message that was told as the one with that index of moments().
  void GoOn(Domain& domain, std::size_t moment) {
    const Moment from = moments_.at(moment);
    moments_.resize(moment + 1);
    known_ = from.known;
    v1::WatchRequest request;
    request.set_after_revision(from.revision);
    Start(domain, request);
  }
  // The daemon ends.
  void Stop() { watch_.reset(); }
  bool following() const { return watch_ != nullptr; }
  std::size_t moments() const { return moments_.size(); }

  // Reads all that there is.
  const Known& Read() {
    for (;;) {
      const absl::StatusOr<std::optional<v1::WatchResponse>> message = watch_->Next();
      EXPECT_TRUE(message.ok()) << message.status();
      if (!message.ok()) break;
      if (message->has_value()) {
        Apply(**message);
      } else if (watch_->caught_up()) {
        break;
      }
    }
    return known_;
  }

 private:
  struct Moment {
    uint64_t revision = 0;
    Known known;
  };

  void Start(Domain& domain, v1::WatchRequest request) {
    for (const char* collection : {"images", "filters", "exports", "connections"}) {
      request.add_collections(collection);
    }
    auto watch = Watch::Start(domain.store(), domain.views(), request);
    ASSERT_TRUE(watch.ok()) << watch.status();
    watch_ = *std::move(watch);
    initial_ = request.send_initial();
  }

  void Apply(const v1::WatchResponse& message) {
    switch (message.kind()) {
      case v1::WatchResponse::KIND_PUT:
        if (message.has_image()) known_[message.name()] = ContentOf(message.image());
        if (message.has_filter()) known_[message.name()] = ContentOf(message.filter());
        if (message.has_export_()) known_[message.name()] = ContentOf(message.export_());
        if (message.has_connection()) known_[message.name()] = ContentOf(message.connection());
        break;
      case v1::WatchResponse::KIND_DELETED:
        known_.erase(message.name());
        break;
      default:
        initial_ = false;
        break;
    }
    if (initial_) return;  // nobody can go on in the middle of it
    constexpr std::size_t kMostMoments = 40;
    moments_.push_back({message.revision(), known_});
    if (moments_.size() > kMostMoments) moments_.pop_front();
  }

  std::unique_ptr<Watch> watch_;
  bool initial_ = false;  // not all is told that there is
  Known known_;
  std::deque<Moment> moments_;
};

}  // namespace gabion::service
