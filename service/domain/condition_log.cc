#include "service/domain/condition_log.h"

#include "service/domain/identity.h"

namespace gabion::service {

ConditionLog::ConditionLog(ConditionLog& other, const std::string& uid) {
  const std::lock_guard lock(other.mutex_);
  for (auto it = other.entries_.lower_bound({uid, std::string()});
       it != other.entries_.end() && it->first.first == uid; ++it) {
    entries_.insert(*it);
  }
}

void ConditionLog::Tell(const std::string& uid, uint64_t generation, std::string_view type,
                        bool satisfied, std::string_view reason, std::string_view message,
                        const google::protobuf::Timestamp& create_time,
                        google::protobuf::RepeatedPtrField<v1::Condition>* conditions) {
  v1::Condition& told = *conditions->Add();
  told.set_type(std::string(type));
  told.set_satisfied(satisfied);
  if (!satisfied) {
    told.set_reason(std::string(reason));
    told.set_message(std::string(message));
  }
  told.set_observed_generation(generation);
  *told.mutable_last_transition_time() = SinceWhen(uid, type, satisfied, create_time);
}

google::protobuf::Timestamp ConditionLog::SinceWhen(
    const std::string& uid, std::string_view type, bool satisfied,
    const google::protobuf::Timestamp& create_time) {
  const std::lock_guard lock(mutex_);
  const std::pair<std::string, std::string> key(uid, type);
  const auto found = entries_.find(key);
  if (found == entries_.end()) {
    if (satisfied) return create_time;
    return entries_.emplace(key, Entry{satisfied, Now()}).first->second.since;
  }
  if (found->second.satisfied != satisfied) found->second = {satisfied, Now()};
  return found->second.since;
}

void ConditionLog::Forget(const std::string& uid) {
  const std::lock_guard lock(mutex_);
  const auto first = entries_.lower_bound({uid, std::string()});
  auto last = first;
  while (last != entries_.end() && last->first.first == uid) ++last;
  entries_.erase(first, last);
}

}  // namespace gabion::service
