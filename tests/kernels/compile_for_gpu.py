"""Compiles kernels as for a GPU, on any machine: reads launches (module, kernel, types of the arguments, constants) as
JSON lines, and writes for each what its machine code is made of.
"""

import json
import re
import sys
from importlib import import_module

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

for line in sys.stdin:
    module, name, types, constants = json.loads(line)
    kernel = getattr(import_module(module), name)
    names = kernel.arg_names
    # A parameter's own type, where it has one, goes before that of the number given.
    signature = {
        arg: own.annotation_type or given for arg, own, given in zip(names, kernel.params, types, strict=False)
    }
    source = ASTSource(kernel, signature | dict.fromkeys(constants, "constexpr"), constants)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": False})
    ptx = made.asm["ptx"]
    operations = sorted(
        set(re.findall(r"^\s*(?:@%p\d+ )?((?:fma|div|add|sub|atom|red|mul|cvt)\.[\w.:]+)", ptx, re.MULTILINE))
    )
    print(json.dumps({"kernel": name, "types": types, "operations": operations, "shared": made.metadata.shared}))
