rockspec_format = "3.0"
package = "vivarium"
version = "0.1.0-1"
source = {url = "file://."} -- luarocks make, in this folder
description = {
  summary = "Models in this process, or in the daemon of this machine",
  detailed = "A binding of libvivarium, a model zoo behind a stable C ABI, for LuaJIT's FFI.",
  license = "MIT",
}
dependencies = {"lua == 5.1"}
build = {
  type = "builtin",
  modules = {vivarium = "vivarium.lua"},
  copy_directories = {"examples"},
}
