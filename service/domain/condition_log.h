// Conditions of resources, and since when they are what they are.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "gabion/v1/common.pb.h"
#include "google/protobuf/repeated_ptr_field.h"
#include "google/protobuf/timestamp.pb.h"

namespace gabion::service {

using Conditions = google::protobuf::RepeatedPtrField<v1::Condition>;

// In the `conditions` of a row, which has no others: that the service itself has made `type`
// satisfied or not, at `time`, unless it says so already.
void NoteTransition(std::string_view type, bool satisfied, const google::protobuf::Timestamp& time,
                    Conditions* stored);
// When it was made that; nothing if the row does not say, or says the opposite.
std::optional<google::protobuf::Timestamp> TransitionOf(std::string_view type, bool satisfied,
                                                        const Conditions& stored);

// What is only observed begins anew with the daemon. Only what was ever not satisfied is
// remembered: it costs nothing where all is well. Owned by the domain; any thread.
class ConditionLog {
 public:
  // What is true of a resource, or is not.
  struct Fact {
    std::string_view type;
    bool satisfied = false;
    std::string_view reason;  // why it is not
    std::string_view message;
    // Since when at least, for what is satisfied: the resource's creation, say.
    google::protobuf::Timestamp not_before;
    // Since when, where that is known; else it counts from the first call that says so.
    std::optional<google::protobuf::Timestamp> since;
  };

  // Adds `fact`, of the resource with that uid and generation, to `conditions`.
  void Tell(const std::string& uid, uint64_t generation, const Fact& fact, Conditions* conditions);
  // True if something that was said last was not satisfied.
  bool HasUnsatisfied(const std::string& uid) const;
  // The resource is gone.
  void Forget(const std::string& uid);

 private:
  struct Entry {
    bool satisfied = false;
    google::protobuf::Timestamp since;
  };

  google::protobuf::Timestamp SinceWhen(const std::string& uid, const Fact& fact);

  mutable std::mutex mutex_;
  std::map<std::pair<std::string, std::string>, Entry> entries_;  // by uid and type
};

}  // namespace gabion::service
