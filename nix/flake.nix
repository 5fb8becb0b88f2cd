{
  description = "cellrun: signed jobs in disposable microVMs, with teardown proven from kernel state";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-24.11";

  outputs = { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" ];
      each = f: nixpkgs.lib.genAttrs systems (system: f nixpkgs.legacyPackages.${system});
    in {
      packages = each (pkgs: rec {
        cellrun = pkgs.callPackage ./package.nix { };
        default = cellrun;
      });

      devShells = each (pkgs: {
        default = pkgs.mkShell {
          inputsFrom = [ self.packages.${pkgs.system}.cellrun ];
          packages = with pkgs; [ containerd runc qemu_kvm erofs-utils nftables iproute2 busybox cpio jq strace clang-tools ccache ];
        };
      });

      checks = each (pkgs: { package = self.packages.${pkgs.system}.cellrun; });
    };
}
