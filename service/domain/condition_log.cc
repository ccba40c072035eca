#include "service/domain/condition_log.h"

#include <algorithm>

#include "google/protobuf/util/time_util.h"
#include "service/domain/identity.h"

namespace gabion::service {

using google::protobuf::Timestamp;

void NoteTransition(std::string_view type, bool satisfied, const Timestamp& time,
                    Conditions* stored) {
  const auto found = std::find_if(stored->begin(), stored->end(),
                                  [&](const v1::Condition& one) { return one.type() == type; });
  if (found != stored->end() && found->satisfied() == satisfied) return;
  v1::Condition& condition = found != stored->end() ? *found : *stored->Add();
  condition.set_type(std::string(type));
  condition.set_satisfied(satisfied);
  *condition.mutable_last_transition_time() = time;
}

std::optional<Timestamp> TransitionOf(std::string_view type, bool satisfied,
                                      const Conditions& stored) {
  for (const v1::Condition& condition : stored) {
    if (condition.type() == type && condition.satisfied() == satisfied) {
      return condition.last_transition_time();
    }
  }
  return std::nullopt;
}

void ConditionLog::Tell(const std::string& uid, uint64_t generation, const Fact& fact,
                        Conditions* conditions) {
  v1::Condition& told = *conditions->Add();
  told.set_type(std::string(fact.type));
  told.set_satisfied(fact.satisfied);
  if (!fact.satisfied) {
    told.set_reason(std::string(fact.reason));
    told.set_message(std::string(fact.message));
  }
  told.set_observed_generation(generation);
  *told.mutable_last_transition_time() = SinceWhen(uid, fact);
}

Timestamp ConditionLog::SinceWhen(const std::string& uid, const Fact& fact) {
  const std::lock_guard lock(mutex_);
  const std::pair<std::string, std::string> key(uid, fact.type);
  const auto found = entries_.find(key);
  if (found == entries_.end()) {
    if (fact.satisfied) return fact.since.value_or(fact.not_before);
    const Timestamp since = fact.since.has_value() ? *fact.since : Now();
    return entries_.emplace(key, Entry{false, since}).first->second.since;
  }
  Entry& entry = found->second;
  if (entry.satisfied != fact.satisfied) {
    const bool known = fact.satisfied && entry.since < fact.not_before;
    entry = {fact.satisfied, known ? fact.not_before : Now()};
  }
  if (fact.since.has_value()) entry.since = *fact.since;
  if (fact.satisfied && entry.since < fact.not_before) entry.since = fact.not_before;
  return entry.since;
}

bool ConditionLog::HasUnsatisfied(const std::string& uid) const {
  const std::lock_guard lock(mutex_);
  for (auto it = entries_.lower_bound({uid, std::string()});
       it != entries_.end() && it->first.first == uid; ++it) {
    if (!it->second.satisfied) return true;
  }
  return false;
}

void ConditionLog::Forget(const std::string& uid) {
  const std::lock_guard lock(mutex_);
  const auto first = entries_.lower_bound({uid, std::string()});
  auto last = first;
  while (last != entries_.end() && last->first.first == uid) ++last;
  entries_.erase(first, last);
}

}  // namespace gabion::service
