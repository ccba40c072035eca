// Early return on errors. The CO_ forms are for coroutines. An expression may contain co_await only
// as its outermost operation: GCC 12 miscompiles co_await below other temporaries.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define RETURN_IF_ERROR(expression)                   \
  do {                                                \
    absl::Status status_of_expression = (expression); \
    if (!status_of_expression.ok()) [[unlikely]]      \
      return status_of_expression;                    \
  } while (false)

#define CO_RETURN_IF_ERROR(expression)                \
  do {                                                \
    absl::Status status_of_expression = (expression); \
    if (!status_of_expression.ok()) [[unlikely]]      \
      co_return status_of_expression;                 \
  } while (false)

#define GABION_CONCAT_INNER(a, b) a##b
#define GABION_CONCAT(a, b) GABION_CONCAT_INNER(a, b)

#define GABION_ASSIGN_OR(returning, holder, target, expression) \
  auto holder = (expression);                                   \
  if (!holder.ok()) [[unlikely]]                                \
    returning std::move(holder).status();                       \
  target = std::move(holder).value()

// ASSIGN_OR_RETURN(auto x, F()): declares or assigns the value of an absl::StatusOr, or returns its
// error.
#define ASSIGN_OR_RETURN(target, expression) \
  GABION_ASSIGN_OR(return, GABION_CONCAT(status_or_, __LINE__), target, expression)
#define CO_ASSIGN_OR_RETURN(target, expression) \
  GABION_ASSIGN_OR(co_return, GABION_CONCAT(status_or_, __LINE__), target, expression)
