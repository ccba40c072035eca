// Conditions of resources, and since when they are what they are.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "gabion/v1/common.pb.h"
#include "google/protobuf/repeated_ptr_field.h"
#include "google/protobuf/timestamp.pb.h"

namespace gabion::service {

// Conditions are observed, so that they begin anew with the daemon. Only what was ever not
// satisfied is remembered: it costs nothing where all is well. Owned by the domain; any thread.
class ConditionLog {
 public:
  ConditionLog() = default;
  // For a dry run: what `other` knows of `uid` now. What is told to this leaves nothing there.
  ConditionLog(ConditionLog& other, const std::string& uid);

  // Adds to `conditions` of the resource with that uid and generation that `type` is satisfied or
  // not; for one that is not, why. The time is that of the first call since which it is so; for one
  // that was never otherwise, when the resource was created.
  void Tell(const std::string& uid, uint64_t generation, std::string_view type, bool satisfied,
            std::string_view reason, std::string_view message,
            const google::protobuf::Timestamp& create_time,
            google::protobuf::RepeatedPtrField<v1::Condition>* conditions);
  // The resource is gone.
  void Forget(const std::string& uid);

 private:
  struct Entry {
    bool satisfied = false;
    google::protobuf::Timestamp since;
  };

  google::protobuf::Timestamp SinceWhen(const std::string& uid, std::string_view type,
                                        bool satisfied,
                                        const google::protobuf::Timestamp& create_time);

  std::mutex mutex_;
  std::map<std::pair<std::string, std::string>, Entry> entries_;  // by uid and type
};

}  // namespace gabion::service
