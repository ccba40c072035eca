// What the managers share.
#pragma once

#include "engine/base/log.h"
#include "engine/engine.h"
#include "service/domain/condition_log.h"
#include "service/domain/export_index.h"
#include "service/domain/filter_attachments.h"
#include "service/domain/image_chains.h"
#include "service/domain/intents.h"
#include "service/domain/operation_manager.h"
#include "service/domain/page_token.h"
#include "service/domain/request_log.h"
#include "service/domain/resource_locks.h"
#include "service/store/metadata_store.h"

namespace gabion::service {

// Everything is owned by the domain and outlives the managers.
struct ManagerContext {
  engine::Engine& engine;
  MetadataStore& store;
  ResourceLocks& locks;
  ExportIndex& index;
  ImageChains& chains;
  FilterAttachments& attachments;
  const PageTokens& tokens;
  RequestLog& requests;
  OperationManager& operations;
  Intents& intents;
  ConditionLog& conditions;
  Logger& logger;
  bool allow_fault_filters = false;
};

}  // namespace gabion::service
