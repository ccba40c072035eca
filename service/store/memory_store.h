// A MetadataStore that forgets everything when it goes: for tests.
#pragma once

#include <memory>

#include "service/store/metadata_store.h"

namespace gabion::service {

std::unique_ptr<MetadataStore> NewMemoryStore();

}  // namespace gabion::service
