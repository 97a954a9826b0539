"""Write logits of tiny models of every supported family, or hidden states of encoders, computed by transformers, as JSON fixtures.

  families.py OUT_DIR [CASE...]

Needs torch, transformers and safetensors. As logits.py, whose generated weights it uses; but models are saved, given their weights under the
names they have on disk, and loaded again, so that fused, merged and renamed tensors are those of real checkpoints.
"""
import argparse
import json
import os
import sys
import tempfile

sys.path.append(sys.path.pop(0))  # this folder has a tokenizers.py of its own, which must not be found first

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText

from logits import IDS, rows, weight

TOLERANCE = 1e-4

BASE = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
IDENTS = dict(bos_token_id=1, eos_token_id=2)
LLAMA = dict(model_type="llama", **BASE, num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5, rope_theta=10000.0,
             tie_word_embeddings=False, **IDENTS)
GEMMA = dict(**BASE, num_key_value_heads=2, head_dim=16, rms_norm_eps=1e-6, max_position_embeddings=64, pad_token_id=0, **IDENTS)
GEMMA4 = dict(dict(GEMMA, num_hidden_layers=3, head_dim=8), global_head_dim=16, sliding_window=5, rope_parameters=dict(
    sliding_attention=dict(rope_type="default", rope_theta=10000.0),
    full_attention=dict(rope_type="proportional", rope_theta=1000000.0, partial_rotary_factor=0.25)))
MOE = dict(**BASE, num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False, **IDENTS)
NEOX = dict(model_type="gpt_neox", **BASE, max_position_embeddings=64, rotary_pct=0.5, rotary_emb_base=10000,
            tie_word_embeddings=False, **IDENTS)
FALCON = dict(model_type="falcon", vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_hidden_size=64,
              max_position_embeddings=64, **IDENTS)
STABLELM = dict(model_type="stablelm", **BASE, num_key_value_heads=2, max_position_embeddings=64, partial_rotary_factor=0.5,
                tie_word_embeddings=False, **IDENTS)
PHI3 = dict(model_type="phi3", **BASE, num_key_value_heads=2, rms_norm_eps=1e-5, tie_word_embeddings=False, pad_token_id=0, **IDENTS)
LFM2 = dict(model_type="lfm2", **BASE, num_key_value_heads=2, norm_eps=1e-5, max_position_embeddings=64, conv_L_cache=3,
            tie_word_embeddings=True, rope_theta=1000000.0, pad_token_id=0, **IDENTS)
DELTA = dict(**BASE, num_key_value_heads=2, head_dim=16, rms_norm_eps=1e-6, max_position_embeddings=64, rope_theta=10000000.0,
             partial_rotary_factor=0.25, linear_conv_kernel_dim=4, linear_key_head_dim=8, linear_value_head_dim=12,
             linear_num_key_heads=2, linear_num_value_heads=4, layer_types=["linear_attention", "full_attention"],
             tie_word_embeddings=False, **IDENTS)
MAMBA = dict(**BASE, num_key_value_heads=2, rms_norm_eps=1e-5, max_position_embeddings=64, rope_theta=10000.0, mamba_n_heads=8,
             mamba_d_state=16, mamba_n_groups=2, mamba_d_conv=4, mamba_expand=2, mamba_chunk_size=8, **IDENTS)
LATENT = dict(**BASE, num_key_value_heads=4, rms_norm_eps=1e-6, max_position_embeddings=64, rope_theta=10000.0, kv_lora_rank=32,
              qk_nope_head_dim=12, qk_rope_head_dim=8, v_head_dim=16, tie_word_embeddings=False, **IDENTS)
NEMOTRON = dict(model_type="nemotron_h", vocab_size=64, hidden_size=32, intermediate_size=64, num_attention_heads=4,
                num_key_value_heads=2, head_dim=8, layer_norm_epsilon=1e-5, max_position_embeddings=64, mamba_num_heads=8,
                mamba_head_dim=8, n_groups=2, ssm_state_size=16, conv_kernel=4, chunk_size=8, tie_word_embeddings=False,
                pad_token_id=0, **IDENTS)
GRANITE = dict(LLAMA, embedding_multiplier=12.0, logits_scaling=8.0, residual_multiplier=0.22, attention_multiplier=0.2,
               num_local_experts=4, num_experts_per_tok=2, tie_word_embeddings=True)
VISION = dict(depth=1, hidden_size=16, intermediate_size=16, num_heads=2, patch_size=4, temporal_patch_size=1, spatial_merge_size=1,
              out_hidden_size=32, num_position_embeddings=16, deepstack_visual_indexes=[])

CASES = {
    "llama-dynamic": dict(LLAMA, max_position_embeddings=8, rope_scaling=dict(rope_type="dynamic", factor=2.0)),
    "llama-yarn": dict(LLAMA, rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16)),
    "llama-yarn-scales": dict(LLAMA, rope_scaling=dict(
        rope_type="yarn", factor=4.0, original_max_position_embeddings=16, mscale=1.0, mscale_all_dim=0.7, truncate=False)),
    "mixtral": dict(MOE, model_type="mixtral", rms_norm_eps=1e-5, rope_theta=1000000.0, num_local_experts=4, num_experts_per_tok=2),
    "qwen3-moe": dict(
        MOE, model_type="qwen3_moe", head_dim=16, rms_norm_eps=1e-6, rope_theta=1000000.0, moe_intermediate_size=32, num_experts=4,
        num_experts_per_tok=2, norm_topk_prob=True, mlp_only_layers=[0]),
    "qwen2-moe": dict(
        MOE, model_type="qwen2_moe", rms_norm_eps=1e-6, moe_intermediate_size=32, shared_expert_intermediate_size=64, num_experts=4,
        num_experts_per_tok=2),
    "olmoe": dict(MOE, model_type="olmoe", rms_norm_eps=1e-5, num_experts=4, num_experts_per_tok=2, pad_token_id=0),
    "gemma": dict(GEMMA, model_type="gemma", rope_theta=10000.0),
    "gemma2": dict(
        GEMMA, model_type="gemma2", rope_theta=10000.0, sliding_window=3, query_pre_attn_scalar=24, attn_logit_softcapping=5.0,
        final_logit_softcapping=3.0),
    "gemma3": dict(
        GEMMA, model_type="gemma3_text", rope_theta=1000000.0, rope_local_base_freq=10000.0,
        rope_scaling=dict(rope_type="linear", factor=8.0), sliding_window=3, sliding_window_pattern=2, query_pre_attn_scalar=16),
    "gemma4": dict(
        GEMMA4, model_type="gemma4_text", attention_k_eq_v=True, num_global_key_value_heads=1, hidden_size_per_layer_input=0,
        final_logit_softcapping=3.0, layer_types=["full_attention", "sliding_attention", "full_attention"]),
    "gemma4-moe": dict(
        model_type="gemma4", tie_word_embeddings=True, audio_config=None, vision_config=dict(
            model_type="gemma4_vision", hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, head_dim=8, patch_size=4, position_embedding_size=16),
        text_config=dict(
            GEMMA4, model_type="gemma4_text", attention_k_eq_v=True, num_global_key_value_heads=1, hidden_size_per_layer_input=0,
            final_logit_softcapping=3.0, layer_types=["full_attention", "sliding_attention", "full_attention"], enable_moe_block=True, num_experts=4,
            top_k_experts=2, moe_intermediate_size=96, use_bidirectional_attention="vision")),
    "gemma4-unified": dict(
        model_type="gemma4_unified", tie_word_embeddings=True, audio_config=None, vision_config=dict(
            model_type="gemma4_unified_vision", patch_size=4, pooling_kernel_size=1, mm_embed_dim=16, mm_posemb_size=16,
            output_proj_dims=32),
        text_config=dict(
            GEMMA4, model_type="gemma4_unified_text", attention_bias=True, per_layer_config={"2": dict(head_dim=24)})),
    "phi3": dict(PHI3, rope_theta=10000.0, max_position_embeddings=64, sliding_window=5),
    "phi3-longrope": dict(
        PHI3, rope_theta=10000.0, max_position_embeddings=16, original_max_position_embeddings=4,
        rope_scaling=dict(type="longrope", short_factor=[1.0, 1.1, 1.2, 1.3], long_factor=[1.0, 1.5, 2.0, 4.0])),
    "phi3-partial": dict(PHI3, rope_theta=10000.0, max_position_embeddings=64, partial_rotary_factor=0.75),
    "olmo2": dict(MOE, model_type="olmo2", rms_norm_eps=1e-6, rope_theta=500000.0, pad_token_id=0),
    "granite": dict(
        LLAMA, model_type="granite", embedding_multiplier=12.0, logits_scaling=8.0, residual_multiplier=0.22, attention_multiplier=0.2,
        tie_word_embeddings=True),
    "smollm3": dict(
        LLAMA, model_type="smollm3", rope_theta=5000000.0, no_rope_layers=[1, 0], tie_word_embeddings=True, pad_token_id=0),
    "stablelm": dict(STABLELM, use_qkv_bias=True),
    "stablelm-parallel": dict(STABLELM, use_parallel_residual=True),
    "gpt2": dict(model_type="gpt2", vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=32, n_inner=64, **IDENTS),
    "gpt2-inverse-layers": dict(
        model_type="gpt2", vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=32, scale_attn_by_inverse_layer_idx=True,
        activation_function="gelu", **IDENTS),
    "gpt-neox": dict(NEOX, use_parallel_residual=True),
    "gpt-neox-serial": dict(NEOX, use_parallel_residual=False, attention_bias=False),
    "opt": dict(
        model_type="opt", vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=64,
        max_position_embeddings=32, word_embed_proj_dim=32, do_layer_norm_before=True, activation_function="relu", **IDENTS),
    "falcon-7b": dict(FALCON, multi_query=True, parallel_attn=True, bias=False),
    "falcon-40b": dict(FALCON, new_decoder_architecture=True, num_kv_heads=2, bias=False),
    "falcon-serial": dict(FALCON, multi_query=False, parallel_attn=False, bias=True),
    "lfm2": dict(
        LFM2, conv_bias=False, layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False),
    "lfm2-bias": dict(
        LFM2, conv_bias=True, full_attn_idxs=[0], block_auto_adjust_ff_dim=True, block_multiple_of=32, block_ffn_dim_multiplier=1.0),
    "qwen3-next": dict(
        DELTA, model_type="qwen3_next", moe_intermediate_size=32, shared_expert_intermediate_size=64, num_experts=4,
        num_experts_per_tok=2, norm_topk_prob=True, mlp_only_layers=[], decoder_sparse_step=1),
    "qwen3.5": dict(DELTA, model_type="qwen3_5_text"),
    "granite-hybrid": dict(
        MAMBA, model_type="granitemoehybrid", embedding_multiplier=12.0, logits_scaling=8.0, residual_multiplier=0.22,
        attention_multiplier=0.2, num_local_experts=0, num_experts_per_tok=0, shared_intermediate_size=64,
        layer_types=["linear_attention", "full_attention"], mamba_conv_bias=True, mamba_proj_bias=False, tie_word_embeddings=True),
    "falcon-h1": dict(
        MAMBA, model_type="falcon_h1", mamba_d_ssm=32, mamba_rms_norm=False, lm_head_multiplier=0.5, embedding_multiplier=2.0,
        key_multiplier=0.7, attention_in_multiplier=1.3, attention_out_multiplier=0.9, ssm_in_multiplier=1.2, ssm_out_multiplier=0.8,
        mlp_multipliers=[0.9, 1.1], ssm_multipliers=[0.9, 1.1, 0.8, 1.2, 0.7], tie_word_embeddings=False, pad_token_id=0),
    "falcon-h1-norm": dict(
        MAMBA, model_type="falcon_h1", mamba_d_ssm=32, mamba_rms_norm=True, mamba_norm_before_gate=True, mamba_proj_bias=True,
        projectors_bias=True, tie_word_embeddings=False, pad_token_id=0),
    "deepseek-v2": dict(
        LATENT, model_type="deepseek_v2", q_lora_rank=None, first_k_dense_replace=1, n_routed_experts=8, n_shared_experts=2,
        num_experts_per_tok=3, moe_intermediate_size=32, n_group=4, topk_group=2, topk_method="group_limited_greedy",
        routed_scaling_factor=1.5),
    "deepseek-v3": dict(
        LATENT, model_type="deepseek_v3", q_lora_rank=32, first_k_dense_replace=1, n_routed_experts=8, n_shared_experts=1,
        num_experts_per_tok=3, moe_intermediate_size=32, n_group=4, topk_group=2, norm_topk_prob=True, routed_scaling_factor=2.5,
        rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16, mscale=1.0, mscale_all_dim=0.8,
                          beta_fast=32, beta_slow=1)),
    "gpt-oss": dict(
        MOE, model_type="gpt_oss", head_dim=16, rms_norm_eps=1e-5, sliding_window=5, attention_bias=True,
        layer_types=["sliding_attention", "full_attention"], num_local_experts=4, num_experts_per_tok=2, rope_theta=150000.0,
        rope_scaling=dict(rope_type="yarn", factor=4.0, beta_fast=32.0, beta_slow=1.0, truncate=False,
                          original_max_position_embeddings=16), pad_token_id=0),
    "granite-moe": dict(GRANITE, model_type="granitemoe"),
    "granite-moe-shared": dict(GRANITE, model_type="granitemoeshared", shared_intermediate_size=96),
    "granite-hybrid-moe": dict(
        MAMBA, model_type="granitemoehybrid", embedding_multiplier=12.0, logits_scaling=8.0, residual_multiplier=0.22,
        attention_multiplier=0.2, num_local_experts=4, num_experts_per_tok=2, shared_intermediate_size=96,
        layer_types=["linear_attention", "full_attention"], mamba_conv_bias=True, mamba_proj_bias=False, tie_word_embeddings=True),
    "qwen3.5-moe": dict(
        {key: value for key, value in DELTA.items() if key != "intermediate_size"}, model_type="qwen3_5_moe_text", moe_intermediate_size=64,
        shared_expert_intermediate_size=64, num_experts=4, num_experts_per_tok=2),
    "qwen3-vl-moe": dict(
        model_type="qwen3_vl_moe", tie_word_embeddings=False, vision_config=VISION, image_token_id=60, video_token_id=61,
        vision_start_token_id=62, vision_end_token_id=63,
        text_config=dict(
            MOE, model_type="qwen3_vl_moe_text", head_dim=16, rms_norm_eps=1e-6, moe_intermediate_size=64, num_experts=4,
            num_experts_per_tok=2, rope_theta=5000000.0,
            rope_scaling=dict(rope_type="default", mrope_section=[4, 2, 2], mrope_interleaved=True))),
    "olmo3": dict(
        dict(MOE, num_hidden_layers=4), model_type="olmo3", rms_norm_eps=1e-6, rope_theta=500000.0, sliding_window=5, pad_token_id=0,
        rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16, beta_fast=32.0, beta_slow=1.0)),
    "seed-oss": dict(LLAMA, model_type="seed_oss", head_dim=16, attention_bias=True, attention_out_bias=False, pad_token_id=0),
    "exaone4": dict(
        LLAMA, model_type="exaone4", sliding_window=5, sliding_window_pattern=2, rope_theta=1000000.0),
    "exaone-moe": dict(
        MOE, model_type="exaone_moe", rms_norm_eps=1e-5, sliding_window=5, sliding_window_pattern=2, rope_theta=1000000.0, num_experts=4,
        num_experts_per_tok=2, moe_intermediate_size=32, num_shared_experts=1, first_k_dense_replace=1, pad_token_id=0),
    "nemotron": dict(MOE, model_type="nemotron", norm_eps=1e-5, partial_rotary_factor=0.5, rope_theta=10000.0),
    "starcoder2": dict(
        dict(MOE, tie_word_embeddings=True), model_type="starcoder2", norm_epsilon=1e-5, use_bias=True, sliding_window=5,
        rope_theta=100000.0),
    "glm4": dict(
        MOE, model_type="glm4", head_dim=16, rms_norm_eps=1e-5, attention_bias=True, partial_rotary_factor=0.5, rope_theta=10000.0,
        pad_token_id=0),
    "glm": dict(
        MOE, model_type="glm", head_dim=16, rms_norm_eps=1e-5, attention_bias=True, partial_rotary_factor=0.5, rope_theta=10000.0,
        pad_token_id=0),
    "glm4-moe": dict(
        MOE, model_type="glm4_moe", head_dim=16, rms_norm_eps=1e-5, attention_bias=True, use_qk_norm=True, partial_rotary_factor=0.5,
        rope_theta=1000000.0, n_routed_experts=4, n_shared_experts=1, num_experts_per_tok=2, moe_intermediate_size=32,
        first_k_dense_replace=1, routed_scaling_factor=1.5, norm_topk_prob=True, pad_token_id=0),
    "glm4-moe-lite": dict(
        {key: value for key, value in LATENT.items() if key != "rms_norm_eps"}, model_type="glm4_moe_lite", rms_norm_eps=1e-5,
        q_lora_rank=32, n_routed_experts=8, n_shared_experts=1, num_experts_per_tok=3, moe_intermediate_size=32, n_group=4, topk_group=2,
        norm_topk_prob=True, routed_scaling_factor=1.8, mlp_layer_types=["dense", "sparse"]),
    "dots1": dict(
        MOE, model_type="dots1", rms_norm_eps=1e-5, rope_theta=10000000.0, n_routed_experts=4, n_shared_experts=2, num_experts_per_tok=2,
        moe_intermediate_size=32, first_k_dense_replace=1, routed_scaling_factor=2.5, norm_topk_prob=True, sliding_window=5,
        max_window_layers=1, pad_token_id=0),
    "minimax-m2": dict(
        MOE, model_type="minimax_m2", head_dim=16, rotary_dim=8, rms_norm_eps=1e-6, rope_theta=5000000.0, num_local_experts=4,
        num_experts_per_tok=2, use_qk_norm=True),
    "ernie": dict(LLAMA, model_type="ernie4_5", head_dim=16, rope_theta=500000.0, pad_token_id=0),
    "ernie-moe": dict(
        MOE, model_type="ernie4_5_moe", rms_norm_eps=1e-5, rope_theta=500000.0, moe_num_experts=4, moe_k=2, moe_num_shared_experts=2,
        moe_intermediate_size=32, moe_layer_start_index=1, moe_layer_interval=1, pad_token_id=0),
    "cohere": dict(MOE, model_type="cohere", layer_norm_eps=1e-5, logit_scale=0.25, rope_theta=10000.0, pad_token_id=0),
    "cohere2": dict(
        dict(MOE, tie_word_embeddings=True), model_type="cohere2", layer_norm_eps=1e-5, logit_scale=0.25, rope_theta=50000.0,
        sliding_window=5, layer_types=["sliding_attention", "full_attention"], pad_token_id=0),
    "ministral": dict(
        LLAMA, model_type="ministral", head_dim=16, sliding_window=5, layer_types=["sliding_attention", "full_attention"], pad_token_id=0),
    "lfm2-moe": dict(
        LFM2, model_type="lfm2_moe", layer_types=["conv", "full_attention"], num_dense_layers=1, num_experts=4, num_experts_per_tok=2,
        moe_intermediate_size=32, use_expert_bias=True, norm_topk_prob=True, routed_scaling_factor=1.5),
    "qwen2-vl": dict(
        model_type="qwen2_vl", tie_word_embeddings=False, image_token_id=60, video_token_id=61, vision_start_token_id=62,
        vision_end_token_id=63,
        vision_config=dict(depth=1, embed_dim=16, hidden_size=32, num_heads=2, mlp_ratio=2, patch_size=4, spatial_merge_size=1,
                           temporal_patch_size=1),
        text_config=dict(
            MOE, model_type="qwen2_vl_text", rms_norm_eps=1e-6, rope_theta=1000000.0,
            rope_scaling=dict(rope_type="default", mrope_section=[1, 1, 2]))),
    "qwen3-vl": dict(
        model_type="qwen3_vl", tie_word_embeddings=True, vision_config=VISION, image_token_id=60, video_token_id=61,
        vision_start_token_id=62, vision_end_token_id=63,
        text_config=dict(
            MOE, model_type="qwen3_vl_text", head_dim=16, rms_norm_eps=1e-6, rope_theta=5000000.0,
            rope_scaling=dict(rope_type="default", mrope_section=[4, 2, 2], mrope_interleaved=True))),
    "arcee": dict(LLAMA, model_type="arcee"),
    "apertus": dict(
        MOE, model_type="apertus", rms_norm_eps=1e-5, hidden_act="xielu", pad_token_id=0, rope_parameters=dict(
            rope_type="llama3", rope_theta=12000000.0, factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
            original_max_position_embeddings=16)),
    "phimoe": dict(
        MOE, model_type="phimoe", rms_norm_eps=1e-5, num_local_experts=4, num_experts_per_tok=2, attention_bias=True, lm_head_bias=True,
        router_jitter_noise=0.2, rope_theta=10000.0, sliding_window=5, original_max_position_embeddings=32, rope_scaling=dict(
            type="longrope", short_factor=[1.0, 1.1, 1.2, 1.3], long_factor=[1.0, 1.5, 2.0, 4.0], short_mscale=1.25, long_mscale=1.25,
            original_max_position_embeddings=32)),
    "hunyuan": dict(
        LLAMA, model_type="hunyuan_v1_dense", head_dim=16, tie_word_embeddings=True, pad_token_id=0, rope_scaling=dict(
            type="dynamic", alpha=1000.0, factor=1.0, beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=1.0)),
    "hunyuan-moe": dict(
        LLAMA, model_type="hunyuan_v1_moe", head_dim=16, pad_token_id=0, num_experts=4, moe_topk=[2, 2]),
    "ministral3": dict(
        LLAMA, model_type="ministral3", head_dim=16, rope_parameters=dict(
            rope_type="yarn", rope_theta=1000000.0, factor=4.0, original_max_position_embeddings=8, beta_fast=32.0, beta_slow=1.0,
            mscale_all_dim=1.0, mscale=1.0, llama_4_scaling_beta=0.1)),
    "mistral4": dict(
        model_type="mistral3", tie_word_embeddings=False, image_token_id=60, spatial_merge_size=1,
        vision_config=dict(
            model_type="pixtral", hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, head_dim=8,
            image_size=8, patch_size=4),
        text_config=dict(
            {key: value for key, value in LATENT.items() if key != "rope_theta"}, model_type="mistral4", q_lora_rank=32,
            first_k_dense_replace=0, n_routed_experts=8, n_shared_experts=1, num_experts_per_tok=3, moe_intermediate_size=32, n_group=4,
            topk_group=2, norm_topk_prob=True, routed_scaling_factor=1.5, rope_parameters=dict(
                rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=8, beta_fast=32.0, beta_slow=1.0,
                mscale_all_dim=1.0, mscale=1.0, llama_4_scaling_beta=0.1))),
    "llama4": dict(
        dict(MOE, num_hidden_layers=4), model_type="llama4_text", head_dim=16, rms_norm_eps=1e-5, rope_theta=500000.0,
        intermediate_size_mlp=96, num_local_experts=4, num_experts_per_tok=2, moe_layers=[0, 1, 3], no_rope_layers=[1, 0, 1, 1],
        attention_chunk_size=6, floor_scale=4, attn_scale=0.1, attn_temperature_tuning=True, use_qk_norm=True),
    "bloom": dict(model_type="bloom", vocab_size=64, hidden_size=32, n_layer=2, n_head=4, **IDENTS),
    "mpt": dict(
        model_type="mpt", vocab_size=64, d_model=96, n_layers=2, n_heads=6, max_seq_len=64, expansion_ratio=4, no_bias=True,
        learned_pos_emb=True, attn_config=dict(alibi=True, alibi_bias_max=8, attn_impl="torch"), **IDENTS),
    "nemotron-h": dict(NEMOTRON, layers_block_type=["linear_attention", "mlp", "full_attention"]),
    "nemotron-h-moe": dict(
        NEMOTRON, layers_block_type=["linear_attention", "moe"], n_routed_experts=4, num_experts_per_tok=2,
        moe_intermediate_size=32, moe_shared_expert_intermediate_size=64, routed_scaling_factor=1.5),
    "bert": dict(
        model_type="bert", **BASE, max_position_embeddings=64, type_vocab_size=2, hidden_act="gelu", layer_norm_eps=1e-12,
        position_embedding_type="absolute", pad_token_id=0),
}
# Models without logits: their last hidden states are the fixture.
ENCODERS = ("bert",)
# Models with parts besides the language model: what its names begin with in them, and what they begin with where it is alone.
INNER = ("model.language_model.", "model.")
NESTED = {"qwen2_vl": INNER, "qwen3_vl": INNER, "qwen3_vl_moe": INNER, "gemma4": INNER, "gemma4_unified": INNER, "mistral3": ("language_model.", "")}


def is_encoder(config):
    return config["model_type"] in ENCODERS


def alone(name, family):
    """What a tensor of a language model inside a larger one would be called if it were alone; `None` for one of another part."""
    if family not in NESTED:
        return name
    if any(part in name for part in ("visual.", "vision_tower.", "multi_modal_projector.", "embed_vision.", "vision_embedder.")):
        return None
    return name.replace(*NESTED[family])


def build(config, folder, pooler=False):
    """The model of a configuration with generated weights, loaded from a checkpoint in `folder`; an encoder with a pooler on request."""
    kind, more = (AutoModel, dict(add_pooling_layer=pooler)) if is_encoder(config) else (AutoModelForCausalLM, {})
    if config["model_type"] in NESTED:
        kind = AutoModelForImageTextToText
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(config, file)
    loaded = AutoConfig.from_pretrained(folder)
    model = kind.from_config(loaded, attn_implementation="eager", dtype=torch.float32, **more)
    model.save_pretrained(folder)
    path = os.path.join(folder, "model.safetensors")
    stored = as_released(load_file(path), config["model_type"])
    # Of a language model inside a larger one, weights are those that it would have alone.
    tensors = {name: weight(alone(name, config["model_type"]) or name, tensor.shape) for name, tensor in stored.items()}
    save_file(tensors, path, metadata={"format": "pt"})
    # What from_pretrained reads is what the fixture holds, not what save_pretrained made of it.
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(config, file)
    return kind.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32, **more).eval(), sorted(tensors)


def as_released(tensors, family):
    """What transformers saves, in the form in which the family's makers released their models; it reads both."""
    if family == "qwen3_5_moe_text":
        return stacked(tensors)
    if family == "qwen3_vl_moe":
        return {name: tensor.transpose(1, 2).contiguous() if ".experts." in name else tensor for name, tensor in tensors.items()}
    return tensors


def stacked(tensors):
    """The tensors with the experts of every layer in two stacks: gates before what they gate, and the linears behind them."""
    result = {name: tensor for name, tensor in tensors.items() if ".experts." not in name}
    for prefix in {name.split(".experts.")[0] for name in tensors if ".experts." in name}:
        def experts(linear):
            return [tensors[f"{prefix}.experts.{index}.{linear}.weight"]
                    for index in range(sum(f"{prefix}.experts." in name and f".{linear}." in name for name in tensors))]
        gates, ups = experts("gate_proj"), experts("up_proj")
        result[f"{prefix}.experts.gate_up_proj"] = torch.stack([torch.cat(pair) for pair in zip(gates, ups)])
        result[f"{prefix}.experts.down_proj"] = torch.stack(experts("down_proj"))
    return result


def doubled(model):
    """The model in float64, without the fused kernel for experts, which has none."""
    for part in model.modules():
        if isinstance(part, transformers.PreTrainedModel) and part._can_set_experts_implementation():
            part.set_experts_implementation("eager")
    return model.double()


def outputs(model, config, ids):
    """Logits, or the last hidden states of an encoder: [sequence, position, features]."""
    with torch.no_grad():
        return model(input_ids=ids).last_hidden_state if is_encoder(config) else model(input_ids=ids, use_cache=False).logits


def run(config):
    with tempfile.TemporaryDirectory() as folder:
        model, names = build(config, folder)
        found = outputs(model, config, torch.tensor([IDS]))[0]
        exact = outputs(doubled(model), config, torch.tensor([IDS]))[0]
    return found.numpy(), (exact - found).abs().max().item(), names


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; all when none is named")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    os.makedirs(arguments.out, exist_ok=True)
    for name in arguments.cases or CASES:
        config = CASES[name]
        found, rounding, names = run(config)
        names = sorted(filter(None, (alone(name, config["model_type"]) for name in names)))
        kind = "hidden_states" if is_encoder(config) else "logits"
        assert rounding < TOLERANCE / 4, (name, rounding)
        head = {
            "tool": "transformers, float32, eager attention, CPU",
            "version": f"transformers {transformers.__version__}, torch {torch.__version__}",
            "command": f"tools/golden/families.py Tests/ModelsTests/Fixtures {name}",
            "weights": "generated: see `weight` in tools/golden/logits.py",
            "tolerance": {
                "absolute": TOLERANCE,
                "reason": f"float32 sums in another order: matrices in float64 move transformers' own {kind.replace('_', ' ')} by {rounding:.1e}",
            },
            "config": config,
            "tensors": names,
            "input_ids": IDS,
        }
        body = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items())
        path = os.path.join(arguments.out, name + ".json")
        with open(path, "w") as file:
            file.write("{\n" + body + ',\n  "' + kind + '": ' + rows(found) + "\n}\n")
        print(f"{path}: {os.path.getsize(path)} bytes, {rounding:.1e} from float64 matrices, numbers up to {np.abs(found).max():.2f}")


if __name__ == "__main__":
    main()
