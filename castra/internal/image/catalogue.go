package image

// The images that have a name: for each the dated file, which its distribution
// never replaces, and that file's digest.
//
// Source is where digest and URL were read together (repository, file and
// commit), and that is what an entry rests on: whoever moves one to a newer
// build looks its digest up in the distribution's own SHA512SUMS, SHA256SUMS,
// .sha512 or CHECKSUM file, and names the place. Nothing is added from memory.
// Size is set where two places agree, or one that hashed the file itself.
//
// What may go away: Debian and Ubuntu delete dated builds after some months,
// and Fedora moves a release to its archive when its support has ended. A
// digest stays true for a copy from anywhere, so a mirror helps.
//
// Firmware is what these VMs need, which have no graphics card. Debian 13 for
// amd64 has a boot loader for BIOS too, but without a graphics card it resets
// the machine when it hands over to the kernel, again and again
// (jiegui2025/hwspec/scripts/vm-run.sh@10b3ccec7b881d85445ade1c7c09d699f54cda73
// boots this very file). Alpine's "uefi" files have no other boot loader.
var catalogue = []Entry{
	{
		Name: "alpine-3.22", Arch: "amd64", User: "alpine", Firmware: "uefi",
		URL:    "https://dl-cdn.alpinelinux.org/alpine/v3.22/releases/cloud/nocloud_alpine-3.22.4-x86_64-uefi-cloudinit-r0.qcow2",
		Digest: "sha512:1b8743fccfd92d8b690e5a75972bebe5d6826b2ea94bc7c71ede3a2a39a5535cbb4e49a6a3f42852d1e05d63076c6f1fbc29ddbb63d766101eaa9dadcaebbb1f",
		Source: "lima-vm/lima/templates/_images/alpine-3.22.yaml@71971ecbb0f95b5a53056e6b2150c48883295f3a",
	},
	{
		Name: "alpine-3.22", Arch: "arm64", User: "alpine", Firmware: "uefi",
		URL:    "https://dl-cdn.alpinelinux.org/alpine/v3.22/releases/cloud/nocloud_alpine-3.22.4-aarch64-uefi-cloudinit-r0.qcow2",
		Digest: "sha512:a53620902f99b1fd4591125d348e4385f036d590607f4fa90d6f85fea0248007ec763cc81d025f347ede5bd746b3726cf5eddd461b6c94c35376f71cb7558317",
		Source: "lima-vm/lima/templates/_images/alpine-3.22.yaml@71971ecbb0f95b5a53056e6b2150c48883295f3a",
	},
	{
		Name: "alpine-3.23", Arch: "amd64", User: "alpine", Firmware: "uefi", Default: true,
		URL:    "https://dl-cdn.alpinelinux.org/alpine/v3.23/releases/cloud/nocloud_alpine-3.23.4-x86_64-uefi-cloudinit-r0.qcow2",
		Digest: "sha512:849196e26640b33fb1f106d46cebdf341c715f7f49363564eacece8097464b6af7041618e94c4eb1a006394663252a86c0fb3158fee5d0ffb094899730679a71",
		Source: "lima-vm/lima/templates/_images/alpine-3.23.yaml@bff2c530b98907e75fcef46bbc1f99dd6b3ad2b8",
	},
	{
		Name: "alpine-3.23", Arch: "arm64", User: "alpine", Firmware: "uefi", Default: true,
		URL:    "https://dl-cdn.alpinelinux.org/alpine/v3.23/releases/cloud/nocloud_alpine-3.23.4-aarch64-uefi-cloudinit-r0.qcow2",
		Digest: "sha512:737b0eb365944ffcf6da477c059c105bbde222942fd5a8380c07db088365b18dbc60a0f2824ea9a3904d57e194e0d05a7074302c3ebc104d0aecb6ddc6ffd91c",
		Source: "lima-vm/lima/templates/_images/alpine-3.23.yaml@bff2c530b98907e75fcef46bbc1f99dd6b3ad2b8",
	},
	{
		Name: "debian-12", Arch: "amd64", User: "debian",
		URL:    "https://cloud.debian.org/images/cloud/bookworm/20261006-2623/debian-12-genericcloud-amd64-20261006-2623.qcow2",
		Digest: "sha512:a09170d17e13af43da61774666f520e3bbec0f8bd96b4db37c15f3426fb327ccad950b80dbe78c09aa5ca90ce5015e99334b0ba5188fd4018736bc3fb5f0882c",
		Source: "yottayoshida/sideeye/spike/platforms/vm.sh@40a41f4dfa93f2140b97a0db9eb0e2fe74d56c8f",
	},
	{
		Name: "debian-12", Arch: "arm64", User: "debian", Firmware: "uefi",
		URL:    "https://cloud.debian.org/images/cloud/bookworm/20261006-2623/debian-12-genericcloud-arm64-20261006-2623.qcow2",
		Digest: "sha512:835b929522716de9798d1c0fbe61caae8313ab78858b278f3389a2db922ae42e4619b4a776ecad39583c149fb85334a2f8cdae685bc56987160e5c86a2354375",
		Source: "yottayoshida/sideeye/spike/platforms/vm.sh@40a41f4dfa93f2140b97a0db9eb0e2fe74d56c8f",
	},
	{
		Name: "debian-13", Arch: "amd64", User: "debian", Firmware: "uefi",
		URL:    "https://cloud.debian.org/images/cloud/trixie/20261001-2618/debian-13-genericcloud-amd64-20261001-2618.qcow2",
		Digest: "sha512:f46f0671a6e5bdec5291ab8972bae2f10e5408c2f64a74078f11efc2f06a436a9d0313ed50e0472542eeabf780e9f7c792ac0a314c6c20507fcd9fd81b468c3d",
		Size:   341508096,
		Source: "yottayoshida/sideeye/spike/platforms/vm.sh@40a41f4dfa93f2140b97a0db9eb0e2fe74d56c8f",
	},
	{
		Name: "debian-13", Arch: "arm64", User: "debian", Firmware: "uefi",
		URL:    "https://cloud.debian.org/images/cloud/trixie/20261001-2618/debian-13-genericcloud-arm64-20261001-2618.qcow2",
		Digest: "sha512:d8470b8c6c38fead046c794b5800a5a7b96672d5bcf543cc230ceb0c4b8ace05ed341a0c8928045422243fde26b2f1f2f58e99244c65709ffda2e3d4b674dd5a",
		Source: "yottayoshida/sideeye/spike/platforms/vm.sh@40a41f4dfa93f2140b97a0db9eb0e2fe74d56c8f",
	},
	{
		Name: "fedora-43", Arch: "amd64", User: "fedora",
		URL:    "https://download.fedoraproject.org/pub/fedora/linux/releases/43/Cloud/x86_64/images/Fedora-Cloud-Base-Generic-43-1.6.x86_64.qcow2",
		Digest: "sha256:846574c8a97cd2d8dc1f231062d73107cc85cbbbda56335e264a46e3a6c8ab2f",
		Source: "lima-vm/lima/templates/_images/fedora-43.yaml@03f21f4320cabf878c528300425667f4b86fa493",
	},
	{
		Name: "fedora-43", Arch: "arm64", User: "fedora", Firmware: "uefi",
		URL:    "https://download.fedoraproject.org/pub/fedora/linux/releases/43/Cloud/aarch64/images/Fedora-Cloud-Base-Generic-43-1.6.aarch64.qcow2",
		Digest: "sha256:66031aea9ec61e6d0d5bba12b9454e80ca94e8a79c913d37ded4c60311705b8b",
		Source: "lima-vm/lima/templates/_images/fedora-43.yaml@03f21f4320cabf878c528300425667f4b86fa493",
	},
	{
		Name: "fedora-44", Arch: "amd64", User: "fedora",
		URL:    "https://download.fedoraproject.org/pub/fedora/linux/releases/44/Cloud/x86_64/images/Fedora-Cloud-Base-Generic-44-1.7.x86_64.qcow2",
		Digest: "sha256:28680fe5b371a5a82ebf43a31926e086a168e59949d03969c5093e7071f90b7f",
		Size:   583729152,
		Source: "lima-vm/lima/templates/_images/fedora-44.yaml@1f8f521ebc337ee0367a298a7fc9a5e0bf2148a3",
	},
	{
		Name: "fedora-44", Arch: "arm64", User: "fedora", Firmware: "uefi",
		URL:    "https://download.fedoraproject.org/pub/fedora/linux/releases/44/Cloud/aarch64/images/Fedora-Cloud-Base-Generic-44-1.7.aarch64.qcow2",
		Digest: "sha256:55c60a3b80d3616a08705afd0459e75fe9f03c54aba7a46e4002a41a72fa0d5b",
		Size:   528154624,
		Source: "lima-vm/lima/templates/_images/fedora-44.yaml@1f8f521ebc337ee0367a298a7fc9a5e0bf2148a3",
	},
	{
		Name: "ubuntu-22.04", Arch: "amd64", User: "ubuntu",
		URL:    "https://cloud-images.ubuntu.com/releases/jammy/release-20261004/ubuntu-22.04-server-cloudimg-amd64.img",
		Digest: "sha256:012d81fade7e8ff4428fc35dfeee711d66d1f47d5ea9c5c8ced96a85b959835c",
		Source: "yottayoshida/sideeye/spike/platforms/vm.sh@40a41f4dfa93f2140b97a0db9eb0e2fe74d56c8f",
	},
	{
		Name: "ubuntu-22.04", Arch: "arm64", User: "ubuntu", Firmware: "uefi",
		URL:    "https://cloud-images.ubuntu.com/releases/jammy/release-20261004/ubuntu-22.04-server-cloudimg-arm64.img",
		Digest: "sha256:86e13258765945ad792dac75fac7f02f4db9fa73a4a535ffa472266e7041fa19",
		Source: "yottayoshida/sideeye/spike/platforms/vm.sh@40a41f4dfa93f2140b97a0db9eb0e2fe74d56c8f",
	},
	{
		Name: "ubuntu-24.04", Arch: "amd64", User: "ubuntu",
		URL:    "https://cloud-images.ubuntu.com/releases/noble/release-20260926/ubuntu-24.04-server-cloudimg-amd64.img",
		Digest: "sha256:6a81c37564db9b1ee84e141922625e1d7c5b389b99bb3c572e0243607d5bb4d2",
		Size:   625612288,
		Source: "pgsty/barn/internal/image/manifest_test.go@0bfb7c3e17c4809e19203bc3ee56f28132d0a34a",
	},
	{
		Name: "ubuntu-24.04", Arch: "arm64", User: "ubuntu", Firmware: "uefi",
		URL:    "https://cloud-images.ubuntu.com/releases/noble/release-20260926/ubuntu-24.04-server-cloudimg-arm64.img",
		Digest: "sha256:1d6bffe64b848468ac97f821d369a4846d983de1800ccf6b5ec8853e85cefc55",
		Size:   620224512,
		Source: "pgsty/barn/internal/image/manifest_test.go@0bfb7c3e17c4809e19203bc3ee56f28132d0a34a",
	},
	{
		Name: "ubuntu-26.04", Arch: "amd64", User: "ubuntu",
		URL:    "https://cloud-images.ubuntu.com/releases/resolute/release-20260927/ubuntu-26.04-server-cloudimg-amd64.img",
		Digest: "sha256:8800651811af9a85465ad1d552add729947bb16488dddb4a9b5305a3d97332b2",
		Size:   865115136,
		Source: "pgsty/barn/internal/image/manifest_test.go@0bfb7c3e17c4809e19203bc3ee56f28132d0a34a",
	},
	{
		Name: "ubuntu-26.04", Arch: "arm64", User: "ubuntu", Firmware: "uefi",
		URL:    "https://cloud-images.ubuntu.com/releases/resolute/release-20260927/ubuntu-26.04-server-cloudimg-arm64.img",
		Digest: "sha256:63a93bd5a8d76e33b15ceb5daa3657bd79be804748051ab178e643b0f5da22e7",
		Size:   945530880,
		Source: "pgsty/barn/internal/image/manifest_test.go@0bfb7c3e17c4809e19203bc3ee56f28132d0a34a",
	},
}
