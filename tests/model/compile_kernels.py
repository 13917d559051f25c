"""Compile every kernel for an H200 (sm_90), which needs no such device: `python compile_kernels.py TYPE`, a process outside Triton's interpreter."""

import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from snapjudge.model.kernels import attention, lora, products

SHARED = 232_448  # bytes of shared memory a block may have there


def compiled(kernel, types, constants, warps, stages):
    """Compile with arguments that are multiples of 16, as launches find them, and check that the kernel fits."""
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else types[name] for name in names}
    attrs = {(place,): [["tt.divisibility", 16]] for place, name in enumerate(names) if name not in constants and types[name] != "fp32"}
    source = ASTSource(kernel, signature, constexprs={(names.index(name),): value for name, value in constants.items()}, attrs=attrs)
    built = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps, "num_stages": stages})
    assert built.asm["cubin"]
    assert built.metadata.shared <= SHARED, f"{kernel} wants {built.metadata.shared} bytes of shared memory"
    print(kernel.__name__, constants, "shared", built.metadata.shared, "wgmma" if "wgmma" in built.asm["ptx"] else "")  # noqa: T201


def main(dtype):
    itemsize = 4 if dtype == "fp32" else 2
    for rows in (64, 1024):
        block_t, block_o, warps = products.blocks_for(rows)
        types = dict.fromkeys(("x", "w", "bias", "y"), f"*{dtype}")
        types |= dict.fromkeys(("rows", "outputs", "inputs", "stride_x", "stride_w", "stride_y"), "i32")
        constants = {"HAS_BIAS": True, "BLOCK_T": block_t, "BLOCK_O": block_o, "BLOCK_I": products.STEP, "GROUP": 8}
        compiled(products._product, types, constants, warps, 3)
    types = dict.fromkeys(lora.TABLES, "*i64") | dict.fromkeys(("x", "y", "low"), f"*{dtype}")
    types |= dict.fromkeys(("before", "inputs", "outputs", "stride_x", "stride_y"), "i32")
    for width in (lora.COMMON, 256):
        compiled(lora._shrink, types, {"ROWS": lora.ROWS, "RANK": width, "BLOCK_I": lora.inputs_at_once(width)}, 4, 3)
        compiled(lora._expand, types, {"ROWS": lora.ROWS, "RANK": width, "BLOCK_O": 128}, 4, 3)
    types = dict.fromkeys(attention._attend.arg_names, "i32") | dict.fromkeys(("q", "k", "v", "pool_k", "pool_v", "out"), f"*{dtype}")
    types |= dict.fromkeys(attention.Tiles.__dataclass_fields__, "*i64") | {"scale": "fp32", "softcap": "fp32"}
    for heads, width, softcap in ((3, 128, False), (7, 64, True), (4, 256, True), (32, 128, False), (1, 64, False)):
        share = triton.next_power_of_2(heads)
        constants = {
            "HEADS": heads,
            "SHARE": share,
            "ROWS": attention.rows_of_a_tile(heads, 1, width * itemsize),
            "WIDTH": width,
            "VALUES": width,
            "BLOCK_D": width,
        }
        constants |= {"BLOCK_V": width, "BLOCK_K": attention.KEYS, "PAGE": 16, "SOFTCAP": softcap}
        compiled(attention._attend, types, constants, 8, attention.stages_for(width * itemsize))


if __name__ == "__main__":
    main(sys.argv[1])
