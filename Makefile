# The front door. Each target says in one line what it does (make help); the work is done
# by Meson and by the scripts in tools/, tests/ and bench/.

PREFIX ?= /usr/local
PYTHON := /usr/bin/python3

.DEFAULT_GOAL := build
.PHONY: build asan lab demo test test-long bench bench-registers bench-turnaround bench-engine bench-passthrough fuzz install clean distclean help

build:             ## compile Bulkhead (installs the packages it needs)
	@tools/setup build
	@tools/build build

asan: build
	@tools/build build/asan -Db_sanitize=address,undefined -Db_lundef=false

# Fetches QEMU and a guest kernel the first time; quick and quiet afterwards.
lab:
	@tools/setup test
	@tools/qemu --prepare
	@tools/guest

demo: build lab    ## compare QEMU's USB controller with Bulkhead's, in a virtual machine
	@$(PYTHON) bench/demo.py

test: asan lab     ## run every test
	@$(PYTHON) tests/run

test-long: asan lab ## run every test, with more data and more repetitions
	@$(PYTHON) tests/run --long

bench: bench-turnaround bench-registers demo bench-passthrough bench-engine ## run every benchmark

bench-turnaround: build ## what batching is worth over a bus with 2 ms of turnaround, in virtual time
	@build/bulkhead bench turnaround --json build/turnaround.json --plot build/turnaround.svg

bench-engine: build ## measure what a packet costs in the engine and the controller
	@build/bulkhead bench engine --json build/engine.json

bench-passthrough: build lab ## compare QEMU's USB pass-through with Bulkhead's, on one device
	@$(PYTHON) bench/passthrough.py

bench-registers: build lab ## measure what the guest's register accesses cost
	@$(PYTHON) bench/registers.py

fuzz: build        ## fuzz the controller with a hostile guest, SECONDS=1800
	@tools/setup test
	@fuzz/run $(or $(SECONDS),1800)

install:           ## install under PREFIX (/usr/local), below DESTDIR if given
	@tools/setup build
	@tools/build build '-Dprefix=$(PREFIX)'
	@DESTDIR='$(DESTDIR)' meson install -C build --no-rebuild

clean:             ## remove what was compiled (keeps build/lab: the downloaded QEMU and guest)
	@test ! -d build || find build -mindepth 1 -maxdepth 1 ! -name lab -exec rm -rf {} +

distclean:         ## remove build/ altogether
	@rm -rf build

help:              ## show this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/make \1	\2/p' Makefile | expand -t 24
