# All of the project's commands; "make help" lists them. The work is done by
# scripts, each of which says at its top what it does.

PREFIX ?= /usr/local
export PREFIX

.PHONY: all deps deps-full install docs deb patches linux linux-image linux-config linux-deb libvirt \
        style lab run check check-unit check-qtest check-functional check-selftest check-libvirt \
        check-upstream check-queue check-deb check-long check-sanitize bench clean help

all: ## build QEMU (the default): build/qemu-full/qemu-system-x86_64 and its tools
	@scripts/deps --check full
	@scripts/build --full

deps: ## install the Debian packages that are missing (as root)
	@scripts/deps

deps-full: ## those of "make", "make install", "make docs" and "make deb", too
	@scripts/deps full

install: ## install QEMU under PREFIX (default /usr/local); DESTDIR is heeded
	@scripts/deps --check full
	@scripts/build --install

docs: deps-full ## make the manual: build/docs/html/index.html, build/docs/man
	@scripts/docs

deb: deps-full ## make Debian packages of QEMU, its manual and libvirt in build/deb
	@scripts/deb

patches: ## write the commits of build/src/qemu back to patches/qemu
	@scripts/patches

linux: ## make build/src/linux-7.3, the kernel with the patches of companion/linux
	@scripts/prepare linux-7.3

linux-image: deps ## build the lab's kernel with companion/linux: build/lab/bzImage-7.3-in-place
	@lab/build 7.3-in-place

linux-config: ## set in the kernel configuration CONFIG=FILE what companion/linux needs
	@scripts/linux-config $(CONFIG)

linux-deb: deps-full ## make Debian packages of that kernel with the configuration CONFIG=FILE
	@scripts/linux-deb $(CONFIG)

libvirt: deps ## build libvirt with the patches of companion/libvirt: build/libvirt-full
	@scripts/libvirt-build --full

style: ## QEMU's checkpatch over our files and patches
	@scripts/deps --check
	@scripts/style

lab: deps ## start the lab's host: a shell there, or CMD="..."
	@scripts/build
	@lab/build "$$(readlink lab/kernels/default)"
	@lab/run $(if $(CMD),-- sh -c "$$CMD")

run: deps ## show the project at work in the lab; ARGS="..." are passed on
	@scripts/run $(ARGS)

check: deps ## all tests; the parts: check-unit, -qtest, -functional, -selftest, -libvirt, -upstream
	@scripts/check

check-unit check-qtest check-functional check-selftest check-libvirt check-upstream: deps
	@scripts/check $(@:check-%=%)

check-queue: deps-full ## does each patch on QEMU, Linux and libvirt build where it stands?
	@scripts/check queue

check-deb: deps-full ## the packages: made, installed, used, removed in a Debian 12 in a directory
	@scripts/check deb

check-long: deps-full ## check-queue, check-deb, mutations, 100,000 requests of each kind, the whole table of meetings
	@scripts/check long

check-sanitize: deps ## unit, qtest and functional tests with the sanitizers
	@scripts/check sanitize

bench: deps ## measure stock and ours side by side, into bench/results.md and plots
	@bench/run

clean: ## remove what was built here, but for build/src, which may hold your work
	rm -rf build/qemu* build/check* build/mutations build/lab build/lab-out build/bench build/deb* build/docs*

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18
