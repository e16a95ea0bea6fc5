"""The cheapest network of every attention-free family of timm, and of those with attention that need a rule.

All 960 run in ``python -m tests.sweep_timm``.
"""

import pytest

from tests.sweep_timm import check

FREE = """
    convmixer_1024_20_ks9_p14 cs3darknet_s cspnext_tiny densenet121 dla46_c dpn48b efficientvim_m1
    efficientvit_b0 ese_vovnet19b_slim fasternet_t0 fastvit_t8 focalnet_tiny_srf ghostnet_050
    hgnetv2_b0 hrnet_w18_small iformer_t inception_next_atto inception_resnet_v2 inception_v3
    inception_v4 lcnet_035 lcnetv2_small legacy_seresnet18 legacy_xception lowformer_e2 nasnetalarge
    pnasnet5large poolformerv2_s12 rdnet_tiny regnetx_002 repghostnet_050 repvit_m0_9 resnetv2_18d
    rexnet_100 selecsls42b shvit_s2 starnet_s050 test_byobnet test_convnext3 test_efficientnet_gn
    test_mambaout test_nfnet test_resnet tresnet_m vgg11 xception41
"""
ATTENTION = """
    coat_lite_tiny davit_tiny efficientvit_m0 levit_128s mvitv2_tiny test_maxvit visformer_tiny
    volo_d1_384
"""


@pytest.mark.parametrize("name", [*FREE.split(), *ATTENTION.split()])
def test_inflated_network_answers_as_the_image_network(name):
    result = check(name, smallest=128 if name.startswith("inception_") and name != "inception_next_atto" else 32)
    assert result["status"] == "passed", result
