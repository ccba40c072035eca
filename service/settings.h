// The table of gabiond's settings. Used by config only.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "service/config.h"

namespace gabion::service {

struct Setting {
  std::string_view name;      // flag "--name", file key "name", variable "GABION_NAME"
  std::string_view argument;  // what --help shows for the value; empty: a switch
  std::string_view fallback;  // what --help shows as default
  std::string_view help;
  // Stores `text`; returns what is wrong with it, or nothing.
  std::string (*set)(std::string_view text, Config* config);
};

std::span<const Setting> AllSettings();

// "localhost", 127.x.y.z or ::1.
bool IsLoopback(std::string_view host);

// Null if there is no such setting.
const Setting* FindSetting(std::string_view name);

}  // namespace gabion::service
