// gabionctl: see HelpText() in command.cc.
#include <cstdlib>
#include <iostream>

#include "service/ctl/run.h"

int main(int argc, char** argv) {
  std::map<std::string, std::string> environment;
  if (const char* server = std::getenv("GABION_SERVER")) environment["GABION_SERVER"] = server;
  return gabion::service::ctl::Run({argv + 1, argv + argc}, environment, std::cin, std::cout,
                                   std::cerr);
}
