{ lib, stdenv, meson, ninja, pkg-config, python3, llvmPackages, bpftools, grpc, protobuf, libseccomp, libnl, libbpf
, spdlog, tomlplusplus, doctest, nlohmann_json, openssl, sqlite, libarchive, libcap, glibc }:

stdenv.mkDerivation {
  pname = "cellrun";
  version = "0.1.0";
  src = lib.cleanSource ./..;

  nativeBuildInputs = [ meson ninja pkg-config python3 llvmPackages.clang-unwrapped bpftools protobuf grpc ];
  buildInputs = [ grpc protobuf libseccomp libnl libbpf spdlog tomlplusplus doctest nlohmann_json openssl sqlite libarchive
    libcap glibc.static ];

  mesonFlags = [ "-Dtests=false" ];
  # clang compiles the eBPF programs and must not get the wrapper's host flags.
  hardeningDisable = [ "zerocallusedregs" ];

  meta = {
    description = "Sandbox runtime for hostile payloads: signed jobspecs, microVMs, default-deny egress, proven teardown";
    license = lib.licenses.asl20;
    platforms = [ "x86_64-linux" ];
    mainProgram = "cellrun";
  };
}
