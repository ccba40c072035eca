// CHECK is for our own bugs, in production too: it prints the broken condition and ends the
// process. What a client or a disk can cause is an absl::Status, never a CHECK.
#pragma once

#include <sstream>
#include <string>

namespace gabion::internal {

[[noreturn]] void CheckFailed(const char* file, int line, const char* condition,
                              const std::string& detail);

template <typename A, typename B>
std::string Operands(const A& a, const B& b) {
  std::ostringstream out;
  out << a << " vs. " << b;
  return out.str();
}

}  // namespace gabion::internal

#define CHECK(condition)                                                              \
  do {                                                                                \
    if (!(condition)) [[unlikely]]                                                    \
      ::gabion::internal::CheckFailed(__FILE__, __LINE__, #condition, std::string()); \
  } while (false)

#define GABION_CHECK_OP(op, a, b)                                                      \
  do {                                                                                 \
    const auto& check_a = (a);                                                         \
    const auto& check_b = (b);                                                         \
    if (!(check_a op check_b)) [[unlikely]]                                            \
      ::gabion::internal::CheckFailed(__FILE__, __LINE__, #a " " #op " " #b,           \
                                      ::gabion::internal::Operands(check_a, check_b)); \
  } while (false)

#define CHECK_EQ(a, b) GABION_CHECK_OP(==, a, b)
#define CHECK_NE(a, b) GABION_CHECK_OP(!=, a, b)
#define CHECK_LT(a, b) GABION_CHECK_OP(<, a, b)
#define CHECK_LE(a, b) GABION_CHECK_OP(<=, a, b)
#define CHECK_GT(a, b) GABION_CHECK_OP(>, a, b)
#define CHECK_GE(a, b) GABION_CHECK_OP(>=, a, b)
