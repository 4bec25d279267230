# make lab        from a fresh machine to two lab Sparks that serve the recipe, measured
# make lab-hosts  the same without the deployment: depot and lab Sparks, ready for any playbook
# make lab-down   removes the lab and nothing else
# make bench-sync times a snapshot to 1, 2, 4 and 8 hosts, and another look (LINK=40mbit SIZE=80)
# make bench-noop times site.yml with nothing to do: as it is, with a whole look, and beside a plain playbook (HOSTS="1 2 4 8" RUNS=3)
# make bench-gateway  what the gateway keeps of prefix caches, with real vLLM, and what it costs (CLIENTS="2 8" EACH=3 ROUNDS=2 FACTORS="" STREAMS=500)
# make bench-watch  what watchdog and exporters take of a Spark, and what they add to decoding (SPEED=20 ROUNDS=8 TOKENS=400 TIMES=20)
# make test       lint, unit tests, all molecule scenarios but the long ones; ends with a table of times (molecule/lab/budgets.yml)
# make test-long  the long scenarios, likewise
# make lint       checks that run no playbook: Python, YAML, spelling, licences, Ansible (-j2: two at a time)
# make unit       the unit tests
# make fuzz       every parser of what comes from outside, on random inputs (SECONDS_EACH=60 PARSER=metrics)
# make scenario   one molecule scenario (NAME=prerequisites), or one step of it (STEP=converge, verify, destroy)
# make sanity     the part of lint that is ansible-test (SANITY="--test pylint plugins/modules/spark_info.py")
# make matrix     the unit tests that touch Ansible, and sanity, on the newest Ansible and Python (TESTS=tests/unit for all), and
#                 on the next Ansible if the package index has a pre-release
# make ee         builds the image for an automation controller without a network, and tests it (execution-environment/)
# make arm64      what runs on a Spark, tried on aarch64 under emulation (docs/aarch64.md; PARTS="fleet server unit" is all)
# make docs       rewrites docs/playbooks.md from playbooks/*.meta.yml, and builds the site (.cache/docs/html)
# make dashboards rewrites the dashboards of Grafana from tools/panels.py
# make changelog  rewrites CHANGELOG.md from changelogs/ (docs/releasing.md)
# make clean      removes everything else that was made here: environment, caches

SHELL := /bin/bash
# Looked up before .venv comes first in PATH.
PYTHON := $(or $(PYTHON),$(shell command -v python3))
INVENTORY ?= inventory/lab

bin := .venv/bin
lab := molecule/lab
phase := $(lab)/phase
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export MOLECULE_GLOB := molecule/*/molecule.yml
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/.cache/collections
export PATH := $(CURDIR)/$(bin):$(PATH)
# If it is set, each of thousands of processes compiles Ansible again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: lab lab-hosts lab-depot lab-down venv lint .lint-files .lint-ansible sanity unit fuzz scenario matrix ee arm64 test test-long bench-sync bench-noop bench-gateway bench-watch docs dashboards changelog clean
.DEFAULT_GOAL := help

.PHONY: help
help:
	@sed -n 's/^# make/make/p' Makefile

# Phases of the lab that are independent in the graph below run in parallel.
parallel := $(MAKE) --no-print-directory --jobs=3

lab:
	+@began=$$SECONDS; $(parallel) .site && printf 'make lab: %d s\n' $$((SECONDS - began))

lab-hosts:
	+@$(parallel) .hosts .publish

venv: .venv-ready

.PHONY: .venv-ready .newest .next .tools .engine .packages .unpacked .base .spark .depot .wheels .snapshot .publish .stub .ee .hosts .site
.venv-ready:
	@$(phase) venv "Python environment from requirements/dev.txt" -- $(lab)/venv.sh $(PYTHON)

.newest:
	@$(phase) newest "Python environment from requirements/newest.txt" -- $(lab)/newest.sh

.next: .newest
	@$(phase) next "pre-release of Ansible, if there is one" -- $(lab)/next.sh

.tools:
	@$(phase) tools "ssh client and curl" -- $(lab)/tools.sh

.engine:
	@$(phase) engine "a Docker engine that answers" -- $(lab)/engine.sh

.packages: .engine
	@$(phase) packages "the distribution's packages, fetched once" -- $(lab)/packages.sh

.unpacked: .packages
	@$(phase) unpacked "HAProxy, promtool, nft and iptables for the unit tests" -- $(lab)/unpacked.sh

.base: .packages
	@$(phase) base "base image of this distribution" -- $(lab)/images.sh base

.depot: .base .tools
	@$(phase) depot "registry, Hub, raw files, apt and Python packages" -- $(lab)/depot.sh

.spark: .base
	@$(phase) spark "image of a lab Spark" -- $(lab)/images.sh spark

.wheels: .venv-ready .packages
	@$(phase) wheels "Python packages of a Spark" -- $(lab)/wheels.sh

.snapshot: .venv-ready .spark .depot .wheels
	@$(phase) snapshot "a lab Spark that is set up" -- $(lab)/snapshot.sh sparkfleet-lab/spark:set-up

.publish: .venv-ready .depot
	@$(phase) publish "vLLM image, models and patch, into the depot" -- $(lab)/publish.sh

.stub: .depot
	@$(phase) stub "stub of the vLLM image, into the depot" -- $(lab)/stub/publish.sh

.ee: .venv-ready .base
	@$(phase) ee "image of a controller" -- $(lab)/ee.sh

.hosts: .venv-ready .spark .depot .wheels
	@$(phase) hosts "lab Sparks of $(INVENTORY)" -- $(lab)/hosts.sh $(INVENTORY)

# Exactly what a user runs.
.site: .hosts .publish
	@echo "--> site       ansible-playbook -i $(INVENTORY) playbooks/site.yml"
	@ansible-playbook -i $(INVENTORY) playbooks/site.yml

lab-down:
	@$(lab)/down.sh

lint: sanity .lint-ansible .lint-files

# .pre-commit-config.yaml lists them.
.lint-files: venv
	PRE_COMMIT_HOME=$(CURDIR)/.cache/pre-commit pre-commit run --all-files

# With a separate home: ansible-lint would prefer a copy of the collection that the user has installed.
.lint-ansible: venv
	ANSIBLE_HOME=$(CURDIR)/.cache/ansible ansible-lint --offline --profile production
	antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs=self .

sanity: venv
	tools/sanity.sh $(bin) $(SANITY)

unit: venv
	pytest -n auto tests/unit

# The unit tests try the same properties on a few inputs, the same ones every time.
SECONDS_EACH ?= 60
fuzz: venv
	python tests/unit/fuzz/run.py seconds $(SECONDS_EACH) $(PARSER)

# Tests that run or import Ansible, or code that Ansible loads. The others do not depend on its version.
touches := ansible-(playbook|doc|galaxy|inventory)|^(from|import) (ansible[. ]|fuzz\.|helpers\.playbook)|plugins\.(action|filter|modules|plugin_utils)
# Packages that the newest environment lacks.
only_here := release/test_execution_environment release/test_changelog lab/test_scenario_tests roles/test_dashboards
TESTS ?= $(filter-out $(only_here:%=tests/unit/%.py),$(shell grep -rlE --include='test_*.py' '$(touches)' tests/unit))
matrix: .matrix-newest .matrix-next
	tools/sanity.sh .cache/newest/bin $(SANITY)
.matrix-newest: .newest
.matrix-next: .next .matrix-newest
# Without a pre-release there is no environment for one.
.matrix-%:
	@[ ! -x .cache/$*/bin/pytest ] || { rm -f .cache/$*/ansible.log; set -x; \
	  ANSIBLE_LOG_PATH=$(CURDIR)/.cache/$*/ansible.log .cache/$*/bin/pytest -n auto -p no:cacheprovider $(TESTS); }
	@! grep -s 'DEPRECATION WARNING' .cache/$*/ansible.log

# Two at a time for two cores: a third part would slow each of them, and time limits would be exceeded.
jobs := 2
# For code that seldom changes: recipes with real vLLM one after the other, two such servers behind a gateway and under their watchdogs, what
# befalls two that are one, built images, sweeps, an upgrade, and other Ansibles.
long := recipes watch_vllm gateway_vllm units_faults build benchmark upgrade
long_checks := matrix
# Tests of other scenarios that are marked as long are left out; the whole of these comes here.
left_out = $(if $(filter %-whole $(long:%=.part-%),$@),,-m 'not long')
# This scenario takes the depot away from all others, so it runs beside parts that need none.
alone := airgap
checks := unit ee
# The longest come first.
by_budget := $(shell sed -n 's/^\([a-z_]*\): *\([0-9]*\)$$/\2 \1/p' $(lab)/budgets.yml | sort -rn | cut -d' ' -f2)
whole := $(patsubst %,%-whole,$(filter-out $(long),$(shell grep -lr --include='test_*.py' 'pytest.mark.long' molecule | cut -d/ -f2 | sort -u)))
scenarios := $(filter-out $(long) $(alone),$(filter $(patsubst molecule/%/molecule.yml,%,$(wildcard molecule/*/molecule.yml)),$(by_budget)))

test: parts := lint $(alone) $(checks) $(scenarios)
test-long: parts := $(long_checks) $(long) $(whole)

# A failure stops no other part. The table names what failed, and fails.
timed := python $(lab)/timed.py
test test-long: venv
	@rm -rf .cache/test
	+@$(timed) run $@ $(MAKE) --no-print-directory --keep-going --output-sync=target --jobs=$(jobs) $(parts:%=.part-%); \
	$(timed) table $@ $(parts)

part = $(timed) part $(@:.part-%=%)
.PHONY: $(patsubst %,.part-%,lint $(checks) $(long_checks) $(alone) $(scenarios) $(long) $(whole))
$(patsubst %,.part-%,lint $(checks) $(long_checks)): .part-%:
	@$(part) $(MAKE) --no-print-directory $* || true

$(patsubst %,.part-%,$(alone) $(scenarios) $(long) $(whole)): .part-%:
	@COLUMNS=240 PYTEST_ADDOPTS="$(PYTEST_ADDOPTS) $(left_out)" $(part) molecule test -s $(*:-whole=) || true

lab_depot := .spark .publish .wheels .snapshot .stub
# Beside the depot, or in place of it.
needs_unit := .unpacked
needs_installed := .newest
needs_matrix := .newest
needs_ee := .base
$(foreach part,unit installed matrix ee,$(eval .part-$(part): $(needs_$(part))))
# No unit test is skipped because this machine lacks something.
.part-unit: export WHOLE := 1
$(patsubst %,.part-%,$(alone) $(long) $(whole)): $(lab_depot)
$(scenarios:%=.part-%): $(lab_depot) .part-$(alone)

scenario:
	+@$(parallel) $(lab_depot) $(needs_$(NAME))
	molecule $(or $(STEP),test) -s $(NAME)

lab-depot:
	+@$(parallel) $(lab_depot) .newest

ee: .ee

arm64: .venv-ready .engine
	@$(phase) arm64 "what runs on a Spark, on aarch64 under emulation" -- $(lab)/arm64.sh $(PARTS)

bench-sync:
	+@$(parallel) .spark .wheels
	@python $(lab)/bench/bench_sync.py

bench-gateway:
	+@$(parallel) .spark .publish .wheels .snapshot
	@PYTHONPATH=$(lab) python $(lab)/bench/bench_bound.py
	@PYTHONPATH=$(lab) python $(lab)/bench/bench_gateway.py

bench-watch:
	+@$(parallel) .spark .publish .wheels .snapshot
	@PYTHONPATH=$(lab) python $(lab)/bench/bench_watch.py

bench-noop:
	+@$(parallel) .spark .wheels .stub
	@python $(lab)/bench/bench_noop.py

docs: venv
	python tools/playbook_pages.py >docs/playbooks.md
	python docs/site/build.py

dashboards: venv
	python tools/dashboards.py

changelog: venv
	python tools/changelog.py >CHANGELOG.md

clean:
	rm -rf .venv .cache/newest .cache/next .mypy_cache .ruff_cache .pytest_cache .ansible .cache/ansible .cache/bytecode .cache/collections .cache/docs .cache/hypothesis .cache/pre-commit .cache/sanity
	@[ ! -d .cache/lab ] || echo "the lab is still there: make lab-down"
