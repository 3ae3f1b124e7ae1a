"""How XLA compiles in the tests. Their programs are many and small and most of them run once, so
what makes a program fast costs more than it saves; imported before JAX."""

import importlib.metadata

_JAXLIB = tuple(int(part) for part in importlib.metadata.version("jaxlib").split(".")[:2])

# A fusion costs these emitters, the only ones by 0.12, ten times what LLVM alone needs.
EMITTERS = ("--xla_cpu_use_fusion_emitters=false",) if _JAXLIB < (0, 11) else ()
HASTY = (
    *EMITTERS,
    # Without any, what 0.12 emits turns gradients of GHMFC to NaN; with 1 and above nothing does.
    f"--xla_backend_optimization_level={0 if EMITTERS else 1}",
    "--xla_llvm_disable_expensive_passes=true",
)
# On a busy machine devices that share two cores wait long for each other; XLA would abort at 40 s.
PATIENT = "--xla_cpu_collective_call_terminate_timeout_seconds=900"


def flags(devices: int = 1, hasty: bool = True) -> str:
    """XLA_FLAGS for so many simulated CPU devices; not `hasty` for programs that run for long."""
    chosen = HASTY if hasty else EMITTERS
    return " ".join([f"--xla_force_host_platform_device_count={devices}", PATIENT, *chosen])
